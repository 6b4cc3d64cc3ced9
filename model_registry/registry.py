"""The registry as its readers see it, and the door to publishing.

A version exists from the moment its manifest does. Tombstones, which lie where a manifest would,
are passed over by everything that reads.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from pydantic_core import to_json

from model_registry import paths
from model_registry.errors import ConflictError, InvalidInputError, NotFoundError
from model_registry.manifests import read_manifest
from model_registry.paths import Reference
from model_registry.progress import transferring
from model_registry.publishing import Publisher, now
from model_registry.servable import SCHEMA_VERSION, PayloadFile, ServableVersion
from model_registry.storage import ObjectStore, open_store
from model_registry.transitions import Claim, Outcome, Tombstone

REGISTRY_VARIABLE = "SLIPWAY_REGISTRY"
DEFAULT_REGISTRY = "./registry"

_READERS = 16
_ROUNDS = 20

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Problem:
    """One way in which a payload is not what its manifest says.

    Attributes:
        variant: Of the version.
        path: Of the file, relative to the variant's directory.
        kind: What is wrong with it.
        expected: What the manifest says; empty for an extra file.
        found: What lies there; empty for a missing file.
    """

    variant: str
    path: str
    kind: Literal["missing", "extra", "size", "digest"]
    expected: str
    found: str


class Registry:
    """Which versions of which models exist, and how one more comes in.

    Attributes:
        store: Where everything lies.
    """

    def __init__(self, store: ObjectStore, *, lease: float = 60.0) -> None:
        """Opens a registry.

        Args:
            store: Where everything lies.
            lease: Seconds without a sign of life after which another publisher is taken for dead.
        """
        self.store = store
        self._lease = lease

    @classmethod
    def open(cls, url: str | None = None) -> Registry:
        """Opens the registry at a URL, else the one $SLIPWAY_REGISTRY names, else ./registry.

        Raises:
            InvalidInputError: If it is neither a path nor an s3:// URL.
        """
        return cls(open_store(url or os.environ.get(REGISTRY_VARIABLE) or DEFAULT_REGISTRY))

    def models(self) -> list[str]:
        """The names of all models anybody ever began to publish."""
        return [name for name in self.store.list_children(paths.REGISTRY) if _is_model_name(name)]

    def version_numbers(self, model: str) -> list[int]:
        """The numbers that are committed or given up, ascending, by one listing."""
        prefix = paths.versions(paths.check_model_name(model))
        numbers = (paths.version_of(info.key) for info in self.store.list(prefix))
        return sorted(number for number in numbers if number)

    def versions(self, model: str, limit: int | None = None) -> list[ServableVersion]:
        """The committed versions, newest first.

        Args:
            model: Its name.
            limit: How many at most; None for all.

        Raises:
            FormatError: If a manifest cannot be read.
        """
        found: list[ServableVersion] = []
        remaining = self.version_numbers(model)[::-1]
        while remaining and (limit is None or len(found) < limit):
            batch = len(remaining) if limit is None else limit - len(found)
            outcomes = _in_parallel(partial(read_manifest, self.store, model), remaining[:batch])
            found += [outcome for outcome in outcomes if isinstance(outcome, ServableVersion)]
            remaining = remaining[batch:]
        return found

    def get(self, reference: Reference) -> ServableVersion:
        """Reads the version a reference names; without number or label the newest.

        Raises:
            NotFoundError: If there is none; the message tells what there is.
        """
        model = reference.model
        if reference.label:
            raise NotFoundError(f"{reference}: no label is set for {model}", hint=f"name a version: {model}:NUMBER")
        if reference.version is None:
            newest = self.versions(model, limit=1)
            if not newest:
                raise self._no_such_version(reference, None)
            return newest[0]
        outcome = read_manifest(self.store, model, reference.version)
        if not isinstance(outcome, ServableVersion):
            raise self._no_such_version(reference, outcome)
        return outcome

    def find(self, model: str, identity: str) -> ServableVersion | None:
        """The committed version of an identity, or None."""
        key = paths.claim(paths.check_model_name(model), identity)
        try:
            claim = Claim.from_json(self.store.get(key).data, key=key)
        except NotFoundError:
            return None
        for number in (claim.version, claim.previous):
            outcome = read_manifest(self.store, model, number) if number else None
            if isinstance(outcome, ServableVersion):
                return outcome
        return None

    def publish(
        self, draft: ServableVersion, payloads: Mapping[str, Path], *, force: bool = False
    ) -> tuple[ServableVersion, bool]:
        """Uploads and commits a new version, unless one of the same identity is committed.

        Args:
            draft: The manifest, with version 0 and neither created_at nor write_id. Variants without
                files are hashed here.
            payloads: Each variant's SavedModel directory. A local registry consumes it by a rename.
            force: Makes a new version whatever there is.

        Returns:
            The committed version, and whether it was there already.

        Raises:
            InvalidInputError: If the draft or a payload cannot be published.
            ConflictError: If this publisher was taken for dead and given up.
            StorageError: If the store failed; nothing is committed then, or the message says that it
                cannot be told. Transient only if calling again can succeed, and makes no second version.
        """
        return Publisher(self.store, draft, payloads, lease=self._lease).publish(force=force)

    def record_rejection(self, draft: ServableVersion, *, reason: str) -> None:
        """Writes down that a candidate was refused and why, in place of an earlier record of it."""
        key = paths.rejection(paths.check_model_name(draft.model), draft.identity)
        document = {
            "schema_version": SCHEMA_VERSION,
            "model": draft.model,
            "identity": draft.identity,
            "rejected_at": now(),
            "reason": reason,
            "source": draft.source,
            "blessing": {"verdict": draft.blessing.verdict, "checks": draft.blessing.checks},
            "run": draft.run,
        }
        data = to_json(document, indent=2) + b"\n"
        for _ in range(_ROUNDS):
            try:
                self.store.put_new(key, data)
                return
            except ConflictError:
                pass
            try:
                self.store.put_if_match(key, data, self.store.get(key).etag)
                return
            except (ConflictError, NotFoundError):
                continue
        raise ConflictError(f"{key} is being written by too many at once")

    def verify(self, version: ServableVersion) -> list[Problem]:
        """Reads every file of every variant back and holds it against the manifest.

        Returns:
            What is wrong, by variant and path; empty if nothing is.
        """
        total = sum(variant.bytes for variant in version.variants)
        with transferring(f"verify {version.model}:{version.version}", total) as advance:
            problems = [item for variant in version.variants for item in self._verify(version, variant.name, advance)]
        return sorted(problems, key=lambda problem: (problem.variant, problem.path))

    def _verify(self, version: ServableVersion, name: str, advance: Callable[[int], None]) -> Iterator[Problem]:
        variant = version.variant(name)
        expected = {file.path: file for file in variant.files} if variant else {}
        prefix = paths.payload(version.model, name, version.version)
        present = {info.key[len(prefix) :]: info.size for info in self.store.list(prefix)}
        for path in present.keys() - expected.keys():
            yield Problem(name, path, "extra", "", f"{present[path]} bytes")
        for path in expected.keys() - present.keys():
            yield Problem(name, path, "missing", f"{expected[path].bytes} bytes", "")
        readable = []
        for path in present.keys() & expected.keys():
            if present[path] == expected[path].bytes:
                readable.append(path)
            else:
                yield Problem(name, path, "size", f"{expected[path].bytes} bytes", f"{present[path]} bytes")
        for path, found in zip(readable, _in_parallel(partial(self._digest, prefix, advance), readable), strict=True):
            if found is None:
                yield Problem(name, path, "missing", f"{expected[path].bytes} bytes", "")
            elif found.sha256 != expected[path].sha256:
                yield Problem(name, path, "digest", expected[path].sha256, found.sha256)

    def _digest(self, prefix: str, advance: Callable[[int], None], path: str) -> PayloadFile | None:
        try:
            found = self.store.digest(prefix + path)
        except NotFoundError:
            return None
        advance(found.bytes)
        return found

    def _no_such_version(self, reference: Reference, outcome: Outcome) -> NotFoundError:
        model = reference.model
        newest = [str(version.version) for version in self.versions(model, limit=5)]
        if newest:
            why = f": it was given up: {outcome.why}" if isinstance(outcome, Tombstone) else ""
            return NotFoundError(f"{reference} does not exist{why}", hint=f"newest versions: {', '.join(newest)}")
        names = self.models()
        near = difflib.get_close_matches(model, names, cutoff=0.5) or names[:5]
        if model in names:
            return NotFoundError(f"{reference} does not exist: no version of {model} is committed in {self.store.uri}")
        there = f"nearest models: {', '.join(near)}" if near else "the registry is empty; `slipway package` fills it"
        return NotFoundError(f"no model {model!r} in {self.store.uri}", hint=there)


def _in_parallel(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterable[_Result]:
    """Maps in threads; a single item needs none."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(_READERS, len(items))) as pool:
        return list(pool.map(function, items))


def _is_model_name(name: str) -> bool:
    try:
        paths.check_model_name(name)
    except InvalidInputError:
        return False
    return True
