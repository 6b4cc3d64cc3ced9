"""Which trained models are new, and how it is told what became of them. Pure.

Rules:
- A trained model is handed over by a folder's package.yaml, which is written last. A folder without one is not ready.
- A model that the registry has seen is left alone, whatever became of it then: packaged, retired, collected, refused.
  Seen means the digest of the trained model; what else the spec says is no reason to package it again.
- The revision that the store tells saves reading it: where that is the same, the digest is.
- One that failed for another reason is tried again: nothing of it stands in the registry.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from model_registry.provenance import Seen
from model_registry.storage.base import ObjectInfo

SPEC = "package.yaml"

Verdict = Literal["packaged", "seen before", "rejected", "failed"]

_REASON_CHARACTERS = 500
_PREFECTS_WORDS = "Flow run encountered an exception:"


@dataclass(frozen=True)
class NewModel:
    """A trained model that may be new.

    Attributes:
        folder: Its folder's name.
        spec: Where its package.yaml lies, a path or an s3:// URI.
        model: The name it is published under.
        source: Where the trained model lies, a path or an s3:// URI.
        revision: What the store tells of it (model_registry.revision), or None.
    """

    folder: str
    spec: str
    model: str
    source: str
    revision: str | None


@dataclass(frozen=True)
class FolderOutcome:
    """What became of one folder.

    Attributes:
        folder: Its name.
        verdict: In a word or two.
        model: The name it is published under; empty where its spec could not be read.
        version: The version it became, now or before; None if none.
        reason: Why it failed or was rejected, in one line; empty otherwise.
        run: The name of the flow run that packaged it, or tried to; empty if there was none.
    """

    folder: str
    verdict: Verdict
    model: str = ""
    version: int | None = None
    reason: str = ""
    run: str = ""

    @property
    def went_wrong(self) -> bool:
        """Whether somebody has to look at it."""
        return self.verdict in ("rejected", "failed")

    @property
    def sentence(self) -> str:
        """The outcome as a person reads it."""
        name = f"{self.model}:{self.version}" if self.version else self.model
        if self.verdict == "packaged":
            return f"{self.folder}: packaged as {name}"
        if self.verdict == "seen before":
            return f"{self.folder}: seen before, {name if self.version else f'{name} was refused then'}"
        return f"{self.folder}: {self.verdict}: {self.reason}"


def handed_over(objects: Iterable[ObjectInfo]) -> dict[str, ObjectInfo]:
    """The package.yaml of each direct child folder that has one, by the folder's name, sorted."""
    found = {}
    for info in objects:
        folder, slash, name = info.key.partition("/")
        if slash and folder and name == SPEC:
            found[folder] = info
    return dict(sorted(found.items()))


def shown(text: str, *, limit: int = 100) -> str:
    """What somebody wrote as it can be logged and shown: one line, printable, not endless."""
    line = " ".join(text.split())
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return printable if len(printable) <= limit else f"{printable[: limit - 3]}..."


class Listing:
    """What a store told of all objects below a root, so that it need not be asked for each source again."""

    def __init__(self, root: str, objects: Iterable[ObjectInfo]) -> None:
        """Keeps a listing.

        Args:
            root: What was listed, an s3:// URI without a closing slash.
            objects: What lies there.
        """
        self._root = f"{root}/"
        self._objects = {info.key: info for info in objects}
        self._keys = sorted(self._objects)

    def at(self, source: str) -> list[tuple[str, ObjectInfo]] | None:
        """What it tells of a source.

        Args:
            source: Where the trained model lies.

        Returns:
            Each object with its path inside the source, that of a single file being empty; None if the source lies
            elsewhere.
        """
        if not source.startswith(self._root):
            return None
        key = source[len(self._root) :].rstrip("/")
        if key in self._objects:
            return [("", self._objects[key])]
        inside = f"{key}/"
        below = self._keys[bisect_left(self._keys, inside) : bisect_left(self._keys, f"{key}0")]  # 0 comes after /
        return [(name[len(inside) :], self._objects[name]) for name in below]


def same_revision(revision: str | None) -> Callable[[Seen], bool]:
    """Whether a model that was seen has this revision; never, where none is known."""
    return lambda seen: revision is not None and seen.revision == revision


def same_digest(sha256: str) -> Callable[[Seen], bool]:
    """Whether a model that was seen has this digest."""
    return lambda seen: seen.sha256 == sha256


def became(run: str, sha256: str) -> Callable[[Seen], bool]:
    """Whether a version is what a flow run made of a digest, or what another run made of it meanwhile."""
    return lambda seen: seen.version is not None and (seen.run == run or seen.sha256 == sha256)


def seen_before(new: NewModel, seen: Seen) -> FolderOutcome:
    """What is told of a folder whose model the registry knows."""
    return FolderOutcome(new.folder, "seen before", new.model, seen.version)


def failed(folder: str, message: str, model: str = "") -> FolderOutcome:
    """What is told of a folder that nothing could be started for."""
    return FolderOutcome(shown(folder), "failed", model, reason=shown(message, limit=_REASON_CHARACTERS))


def run_failed(new: NewModel, message: str, run: str) -> FolderOutcome:
    """What is told of a folder whose packaging did not complete.

    Args:
        new: The model.
        message: What the flow run ended with, as Prefect words it.
        run: The flow run's name.
    """
    reason = message.removeprefix(_PREFECTS_WORDS).strip()
    rejected = reason.startswith("RejectedError")
    reason = shown(reason.removeprefix("RejectedError:").strip(), limit=_REASON_CHARACTERS)
    return FolderOutcome(new.folder, "rejected" if rejected else "failed", new.model, reason=reason, run=run)


def packaged(new: NewModel, version: int | None, run: str) -> FolderOutcome:
    """What is told of a folder whose packaging completed."""
    return FolderOutcome(new.folder, "packaged", new.model, version, run=run)


def counted(outcomes: Iterable[FolderOutcome]) -> str:
    """How many folders ended how, in words."""
    found = Counter(outcome.verdict for outcome in outcomes)
    return ", ".join(f"{found[verdict]} {verdict}" for verdict in get_args(Verdict) if found[verdict]) or "none"


def failure_message(outcomes: Sequence[FolderOutcome]) -> str | None:
    """What the run that found them fails with; None if nothing went wrong."""
    wrong = [outcome for outcome in outcomes if outcome.went_wrong]
    if not wrong:
        return None
    sentences = "; ".join(outcome.sentence for outcome in wrong)
    return f"{len(wrong)} of {len(outcomes)} trained models were not packaged: {sentences}"
