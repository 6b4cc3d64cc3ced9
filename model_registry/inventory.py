"""What lies in a registry, as listings tell it: the numbers of a model, and what is at each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from model_registry import paths
from model_registry.errors import InvalidInputError
from model_registry.journal import Journal
from model_registry.servable import TOMBSTONE_BYTES
from model_registry.state import State
from model_registry.storage.base import ObjectInfo, ObjectStore

# As Slipway writes it; TensorFlow Serving takes `007` for 7, and that is somebody else's.
_VERSION = re.compile("[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Files:
    """What lies below a prefix.

    Attributes:
        count: How many files.
        bytes: Their size.
        age: Seconds since the youngest of them was written; infinite where there is none.
    """

    count: int = 0
    bytes: int = 0
    age: float = math.inf

    def and_one(self, size: int, age: float) -> Files:
        """With one more."""
        return Files(self.count + 1, self.bytes + size, min(self.age, age))


NO_FILES = Files()


@dataclass(frozen=True)
class Inventory:
    """What a registry holds of one model, as its state and four listings tell it.

    Attributes:
        model: Its name.
        state: Of its labels and versions.
        retired: Seconds since each retired version was, at least.
        files: At each number, in all variants.
        reserved: Seconds since each number was taken.
        committed: Seconds since each manifest was written.
        buried: Numbers with a tombstone.
    """

    model: str
    state: State
    retired: Mapping[int, float]
    files: Mapping[int, Files]
    reserved: Mapping[int, float]
    committed: Mapping[int, float]
    buried: frozenset[int]

    def at(self, number: int) -> Files:
        """What lies at a number."""
        return self.files.get(number, NO_FILES)

    def name(self, number: int) -> str:
        """A number as people name it."""
        return f"{self.model}:{number}"


def retirement_ages(state: State, age: float, history: Mapping[int, float]) -> dict[int, float]:
    """How long ago each retired version was retired, at least.

    A record comes into history when the next transition is made: it is never older than its own.

    Args:
        state: The state.
        age: Seconds since it was written, by the store's clock.
        history: The same of each record, by its revision.
    """
    return {
        version: age if revision == state.revision else history.get(revision, age)
        for version, revision in state.retired.items()
    }


def take_inventory(store: ObjectStore, model: str) -> Inventory:
    """Reads the state and lists what there is of a model.

    Payloads are listed before reservations, which precede them: files whose number nobody reserved are
    then really nobody's. Manifests come last: a number is not taken for uncommitted by an old listing.

    Raises:
        FormatError: If the state cannot be trusted.
    """
    seen = Journal(store, model).read()
    files: dict[int, Files] = {}
    for info in valid_objects(store, payloads := f"{paths.MODELS}{model}/"):
        _, _, rest = info.key[len(payloads) :].partition("/")
        number, slash, _ = rest.partition("/")
        if slash and _VERSION.fullmatch(number):
            files[int(number)] = files.get(int(number), NO_FILES).and_one(info.size, info.age)
    reserved = {number: info.age for number, info in _numbered(store, paths.reservations(model))}
    manifests = dict(_numbered(store, paths.versions(model)))
    history = _numbered(store, paths.history(model)) if seen.state.retired else ()
    return Inventory(
        model,
        seen.state,
        retirement_ages(seen.state, seen.age, {revision: info.age for revision, info in history}),
        files,
        reserved,
        {number: info.age for number, info in manifests.items() if info.size > TOMBSTONE_BYTES},
        frozenset(number for number, info in manifests.items() if info.size <= TOMBSTONE_BYTES),
    )


def valid_objects(store: ObjectStore, prefix: str) -> Iterator[ObjectInfo]:
    """What lies below a prefix, without what no store of ours can have written, and none could delete."""
    return (info for info in store.list(prefix) if _is_key(info.key))


def payload_objects(store: ObjectStore, model: str, version: int) -> Iterator[ObjectInfo]:
    """The files at a number, in whatever variant, whether or not a manifest names it."""
    for variant in store.list_children(f"{paths.MODELS}{model}/"):
        prefix = paths.payload(model, variant, version)
        if _is_key(prefix[:-1]):
            yield from valid_objects(store, prefix)


def staged_runs(store: ObjectStore) -> dict[str, Files]:
    """What lies in the staging directory of each run."""
    runs: dict[str, Files] = {}
    for info in valid_objects(store, paths.STAGING):
        run, slash, _ = info.key[len(paths.STAGING) :].partition("/")
        if slash:
            runs[run] = runs.get(run, NO_FILES).and_one(info.size, info.age)
    return runs


def _numbered(store: ObjectStore, prefix: str) -> Iterator[tuple[int, ObjectInfo]]:
    for info in store.list(prefix):
        if (number := paths.version_of(info.key)) and info.key.count("/") == prefix.count("/"):
            yield number, info


def _is_key(key: str) -> bool:
    try:
        paths.check_key(key)
    except InvalidInputError:
        return False
    return True
