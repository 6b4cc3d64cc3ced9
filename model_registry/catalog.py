"""The registry as its readers see it.

A version exists from the moment its manifest does. Tombstones, which lie where a manifest would, are
passed over; so are retired versions, unless they are asked for by their number.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial

from model_registry import paths
from model_registry.claims import Claim
from model_registry.errors import FormatError, InvalidInputError, NotFoundError
from model_registry.journal import Journal
from model_registry.manifests import read_manifest
from model_registry.parallel import in_parallel
from model_registry.paths import Reference
from model_registry.servable import TOMBSTONE_BYTES, ServableVersion
from model_registry.signing import Verifier
from model_registry.state import Record, State
from model_registry.storage.base import ObjectStore
from model_registry.tombstone import Outcome, Tombstone
from model_registry.transitions import no_label

_ANEW = "see who wrote into the registry; with --force a new version is made beside it"


@dataclass(frozen=True)
class ListedVersion:
    """A committed version as a listing tells it.

    Attributes:
        version: Its number.
        labels: Which name it.
        retired: Whether no label may name it any more.
        age: Seconds since it was committed, by the store's clock.
    """

    version: int
    labels: tuple[str, ...]
    retired: bool
    age: float


class Catalog:
    """Which models and versions there are, and what their labels name.

    Attributes:
        store: Where everything lies.
        verifier: Whose signature every manifest must bear; None where no public key is configured.
    """

    def __init__(self, store: ObjectStore, *, verifier: Verifier | None = None) -> None:
        self.store = store
        self.verifier = verifier

    def models(self) -> list[str]:
        """The names of all models anybody ever began to publish."""
        return [name for name in self.store.list_children(paths.REGISTRY) if _is_model_name(name)]

    def state(self, model: str) -> State:
        """What the labels of a model name, and what is retired."""
        return Journal(self.store, model).read().state

    def history(self, model: str, limit: int | None = None) -> list[Record]:
        """The transitions of a model's labels and versions, the last one first.

        Raises:
            FormatError: If one is missing, or cannot be trusted.
        """
        return Journal(self.store, model).history(limit)

    def listing(self, model: str, state: State | None = None) -> list[ListedVersion]:
        """The committed versions, newest first, by reading the state and one listing.

        Args:
            model: Its name.
            state: Where it was read just before.

        Raises:
            FormatError: If the state cannot be trusted.
        """
        return self._listing(model, state or self.state(model))

    def committed(self, model: str) -> list[int]:
        """The numbers of the committed versions, newest first, even where the state cannot be trusted."""
        return [listed.version for listed in self._listing(paths.check_model_name(model), State())]

    def versions(self, model: str, limit: int | None = None) -> list[ServableVersion]:
        """The manifests of the committed versions that are not retired, newest first.

        Args:
            model: Its name.
            limit: How many at most; None for all.

        Raises:
            FormatError: If a manifest cannot be read.
        """
        found: list[ServableVersion] = []
        remaining = [listed.version for listed in self.listing(model) if not listed.retired]
        while remaining and (limit is None or len(found) < limit):
            batch = len(remaining) if limit is None else limit - len(found)
            outcomes = in_parallel(partial(self.outcome, model), remaining[:batch])
            found += [outcome for outcome in outcomes if isinstance(outcome, ServableVersion)]
            remaining = remaining[batch:]
        return found

    def get(self, reference: Reference) -> ServableVersion:
        """Reads the version a reference names; without number or label the newest that is not retired.

        Raises:
            NotFoundError: If there is none; the message tells what there is.
            FormatError: If its manifest or the state cannot be trusted.
        """
        if reference.version is None:
            return self.with_state(reference)[0]
        outcome = self.outcome(reference.model, reference.version)
        if not isinstance(outcome, ServableVersion):
            raise self.no_such_version(reference, outcome)
        return outcome

    def with_state(self, reference: Reference) -> tuple[ServableVersion, State]:
        """As `get`, with the model's state beside the version: what there is of either is read once.

        Raises:
            NotFoundError: As `get` does.
            FormatError: Likewise.
        """
        model = reference.model
        if reference.label:
            return self._labelled(model, reference.label)
        if reference.version is not None:
            state = self.state(model)  # before: what is collected afterwards is told by its tombstone
            return self.get(reference), state
        state = self.state(model)
        for listed in self._listing(model, state):
            outcome = None if listed.retired else self.outcome(model, listed.version)
            if isinstance(outcome, ServableVersion):
                return outcome, state
        raise self.no_such_version(reference, None)

    def find(self, model: str, identity: str) -> ServableVersion | None:
        """The committed version of an identity that is not retired, or None."""
        key = paths.claim(paths.check_model_name(model), identity)
        try:
            claim = Claim.from_json(self.store.get(key).data, key=key)
        except NotFoundError:
            return None
        for number in (claim.version, claim.previous):
            outcome, retired = self.claimed(model, number, identity) if number else (None, False)
            if isinstance(outcome, ServableVersion) and not retired:
                return outcome
        return None

    def claimed(self, model: str, number: int, identity: str) -> tuple[Outcome, bool]:
        """What lies at the number that a claim names, and whether it is a retired version.

        Raises:
            FormatError: If it cannot be trusted, or was made from something else: nobody signed the claim.
        """
        # The state first: what is collected afterwards is told by its tombstone.
        retired = number in self.state(model).retired
        try:
            outcome = self.outcome(model, number)
        except FormatError as error:
            raise FormatError(f"{error.message}; it would be used again", hint=_ANEW) from error
        if isinstance(outcome, ServableVersion) and outcome.identity != identity:
            raise FormatError(
                f"{paths.claim(model, identity)} names {model}:{number}, which was made from something else: expected "
                f"identity {identity[:12]}, found {outcome.identity[:12]}",
                hint=_ANEW,
            )
        return outcome, retired

    def outcome(self, model: str, version: int) -> Outcome:
        """What lies at a manifest's key (model_registry.manifests)."""
        return read_manifest(self.store, model, version, verifier=self.verifier)

    def no_such_version(self, reference: Reference, outcome: Outcome) -> NotFoundError:
        """The error for a version that is not there; the hint tells what is."""
        model = reference.model
        newest = [str(listed.version) for listed in self.listing(model) if not listed.retired][:5]
        why = f": {outcome.why}" if isinstance(outcome, Tombstone) else ""
        if newest:
            return NotFoundError(f"{reference} does not exist{why}", hint=f"newest versions: {', '.join(newest)}")
        names = self.models()
        near = difflib.get_close_matches(model, names, cutoff=0.5) or names[:5]
        if model in names:
            return NotFoundError(
                f"{reference} does not exist{why}: no version of {model} is committed in {self.store.uri}"
            )
        there = f"nearest models: {', '.join(near)}" if near else "the registry is empty; `slipway package` fills it"
        return NotFoundError(f"no model {model!r} in {self.store.uri}", hint=there)

    def _listing(self, model: str, state: State) -> list[ListedVersion]:
        # The state was read before: what it names was committed by then.
        found = [
            ListedVersion(number, state.labels_of(number), number in state.retired, info.age)
            for info in self.store.list(paths.versions(model))
            if (number := paths.version_of(info.key)) and info.size > TOMBSTONE_BYTES
        ]
        return sorted(found, key=lambda listed: -listed.version)

    def _labelled(self, model: str, label: str) -> tuple[ServableVersion, State]:
        without: set[int] = set()
        while True:
            state = self.state(model)
            number = state.labels.get(label)
            if number is None:
                if not state.revision and not self.listing(model):
                    raise self.no_such_version(Reference(model, label=label), None)
                raise no_label(state, model, label)
            outcome = self.outcome(model, number)
            if isinstance(outcome, ServableVersion):
                return outcome, state
            # Moved away and collected since the state was read; then the state names another by now.
            if number in without:
                raise FormatError(
                    f"{model}@{label} names {model}:{number}, which has no manifest: expected a committed version",
                    hint="somebody deleted it; restore it from a backup, or promote another version",
                )
            without.add(number)


def _is_model_name(name: str) -> bool:
    try:
        paths.check_model_name(name)
    except InvalidInputError:
        return False
    return True
