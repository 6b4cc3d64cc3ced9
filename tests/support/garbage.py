"""Registries that hold garbage, and a look at what is left of it."""

from __future__ import annotations

from pathlib import Path

from model_registry import paths
from model_registry.claims import Claim
from model_registry.collection import Plan, Report, collect, plan
from model_registry.errors import StorageError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.reservation import Reservation
from model_registry.servable import Run
from model_registry.state import Origin
from model_registry.storage import ObjectStore
from model_registry.tombstone import Tombstone
from tests.support.drafts import make_draft, make_payload
from tests.support.failing_stores import Front
from tests.support.publishers import payload_keys

ANN = Origin("ann@build-7")
HOUR = 3600.0


def gc(registry: Registry, *models: str, keep: int | None = None, grace: float = 0.0) -> Report:
    return collect(registry, plan(registry, models or None, keep=keep, grace=grace), origin=ANN)


def kinds(found: Plan | Report) -> list[tuple[str, str]]:
    return [(item.kind, item.name) for item in found.items]


def publish_many(registry: Registry, directory: Path, count: int, model: str = "digits") -> None:
    for number in range(1, count + 1):
        payload = make_payload(directory / model / str(number))
        registry.publish(make_draft(model, f"a{number}"), {"native": payload})


def abandon(store: ObjectStore, number: int, identity: str = "dead") -> None:
    """Leaves what a publisher leaves that was killed in the middle of its upload."""
    reservation = Reservation(number, identity, Run("1", "killed"), "2030-01-01T00:00:00+00:00", "w")
    store.put_new(paths.reservation("digits", number), reservation.to_json())
    store.put_new(paths.claim("digits", identity), Claim(number, "w", reservation.run).to_json())
    store.put_new(f"{paths.payload('digits', 'native', number)}variables/variables.index", b"half")


def bury(store: ObjectStore, number: int, *, occupied: bool = False) -> None:
    tombstone = Tombstone("run-1", "its run was killed", "2030-01-01T00:00:00+00:00", occupied)
    store.put_new(paths.manifest("digits", number), tombstone.to_json())


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key).data for info in store.list("")}


def numbers_with_files(store: ObjectStore) -> set[int]:
    return {int(key.split("/")[3]) for key in payload_keys(store)}


class Refusing(Front):
    """Deletes nothing below a prefix."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        super().__init__(store)
        self._prefix = prefix

    def delete(self, keys: object) -> None:
        chosen = list(keys)  # type: ignore[call-overload]
        if any(key.startswith(self._prefix) for key in chosen):
            raise StorageError("access denied")
        self._store.delete(chosen)


# What is in the registry of the tests below: 3 is stable and was 2 before, 1 is retired, 4 is one too many,
# 5 the newest; 6 was abandoned, 7 given up with files left, 9 is nobody's.
NEEDED = {2, 3, 5, 9}


def make_garbage(registry: Registry, directory: Path) -> None:
    publish_many(registry, directory, 5)
    for version in (2, 3):
        registry.promote("digits", version, "stable", origin=ANN)
    registry.retire("digits", [1], origin=ANN)
    store = registry.store
    abandon(store, 6)
    abandon(store, 7, "dead-too")
    bury(store, 7)
    store.put_new("models/digits/native/9/saved_model.pb", b"foreign")
    store.put_new("staging/run-1/log", b"")


def assert_clean(registry: Registry) -> None:
    assert plan(registry, keep=1, grace=0.0).items == ()
    assert numbers_with_files(registry.store) == NEEDED
    state = registry.state("digits")
    assert (state.labels, state.retired) == ({"stable": 3}, {})
    assert {listed.version for listed in registry.listing("digits")} == {2, 3, 5}
    for version in (2, 3, 5):
        assert registry.verify(registry.get(Reference("digits", version=version))) == []
    registry.history("digits")
