"""A process that changes the registry is killed at every point there is, and nobody else notices.

Readers see a version whole or not at all; whoever does the same again succeeds, and history tells it once.
The points are counted, not chosen: one run to the end tells how many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

import pytest

from model_registry import paths
from model_registry.errors import SlipwayError
from model_registry.parallel import in_parallel
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.servable import NATIVE
from model_registry.state import Origin, Transition
from model_registry.storage import ObjectStore
from model_registry.storage.memory import MemoryStore
from model_registry.verification import contradictions
from tests.support.crash_server import CrashServer, Order, Outcome, make_client, run_crash_server, store_at
from tests.support.figures import Figures
from tests.support.fixtures_s3 import Bucket
from tests.support.kill_points import Level
from tests.support.operations import COLLECTION, MODEL, OPERATIONS, Operation, collect_garbage

pytestmark = pytest.mark.figures

# A dead publisher is relieved after so many seconds. The times of S3 are whole seconds.
_LEASE = 0.5

_IN_THE_SUITE = {
    *(("local", "calls", name) for name in OPERATIONS if name != "publish a large version"),
    ("s3", "calls", "publish the first version"),
    *(("local", "system", name) for name in ("publish another version", "promote", COLLECTION)),
}
_LONG = [pytest.mark.soak, pytest.mark.timeout(1800)]
_MATRIX = [
    pytest.param(*case, id="-".join(case), marks=[] if case in _IN_THE_SUITE else _LONG)
    for case in product(("local", "s3"), ("calls", "system"), OPERATIONS)
]


class Place:
    """Where a matrix runs: a registry for each point, all on one kind of store."""

    def __init__(self, root: str, scratch: Path, server: CrashServer) -> None:
        self._root = root
        self._scratch = scratch
        self._server = server
        self._client = make_client() if root.startswith("s3://") else None
        self._numbers = count()

    def seeded(self, objects: dict[str, bytes]) -> str:
        """The URL of a new registry that holds these."""
        url = f"{self._root}/{next(self._numbers)}"
        store = self.store(url)
        in_parallel(lambda key: store.put_new(key, objects[key]), sorted(objects))
        return url

    def store(self, url: str) -> ObjectStore:
        return store_at(url, self._client)

    def run(self, url: str, operation: Operation, level: Level, at: int | None = None) -> Outcome:
        """Lets another process do it, and die at a point."""
        return self._server.send(Order(url, operation.name, level, at, str(self._scratch)))


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if kind == "s3":
        bucket: Bucket = request.getfixturevalue("s3_bucket")
        root = f"s3://{bucket.name}"
    else:
        root = str(tmp_path / "registries")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with run_crash_server() as server:
        yield Place(root, scratch, server)


@dataclass(frozen=True)
class Seen:
    """What readers see of a registry.

    Attributes:
        versions: The identity of each committed version, by its number.
        labels: What they name.
        retired: Which versions no label may name.
        transitions: All of them, the first one first.
    """

    versions: dict[int, str]
    labels: dict[str, int]
    retired: frozenset[int]
    transitions: tuple[Transition, ...]


@pytest.mark.parametrize(("kind", "level", "name"), _MATRIX)
def test_a_kill_at_any_point_leaves_all_or_nothing_and_can_be_repeated(
    place: Place, kind: str, level: Level, name: str, figures: Figures
) -> None:
    operation = OPERATIONS[name]
    objects = _objects_before(operation)
    unharmed = place.seeded(objects)
    before = _look(place.store(unharmed))
    whole = place.run(unharmed, operation, level)
    assert (whole.signal, whole.status) == (0, 0), whole
    after = _look(place.store(unharmed))
    assert after != before

    points = whole.points
    # First all are killed: until the last one is, the lease of the first has run out.
    killed = []
    for at in range(len(points)):
        url = place.seeded(objects)
        outcome = place.run(url, operation, level, at)
        assert (outcome.signal, outcome.status) in ((9, 0), (0, 0)), outcome
        if outcome.signal:
            killed.append((f"{at} of {len(points)}, {outcome.points[-1]}", place.store(url)))
    # Threads that race may take a few steps more or fewer, so that the last points are not always there.
    assert len(killed) > (0.9 if level == "system" else 0.97) * len(points)

    found = Counter[str]()
    failures = {}
    for point, store in killed:
        try:
            seen = _look(store)
            _check_all_or_nothing(seen, before, after, operation)
            _check_repeated(store, operation, before, after, done=seen == after)
            found["done" if seen == after else "not done" if seen == before else "half done"] += 1
        except (AssertionError, SlipwayError) as error:  # each point is told, not only the first that fails
            failures[point] = f"{type(error).__name__}: {error}"
    assert failures == {}
    assert found["not done"] and found["done"], "the points lie on both sides of the commit"
    figures("crashes", operation=name, store=kind, level=level, **{"kill points": len(killed)}, **found)


def _objects_before(operation: Operation) -> dict[str, bytes]:
    store = MemoryStore()
    operation.prepare(Registry(store))
    return {info.key: store.get(info.key).data for info in store.list("")}


def _look(store: ObjectStore) -> Seen:
    """Reads all that readers can, and holds it against itself."""
    registry = Registry(store)
    assert contradictions(registry, MODEL) == []
    state = registry.state(MODEL)
    listed = {one.version for one in registry.listing(MODEL)}
    versions = {number: registry.get(Reference(MODEL, version=number)) for number in listed}
    for version in versions.values():
        assert registry.verify(version) == []
    servable = {number: version for number, version in versions.items() if number not in state.retired}
    assert {version.version: version for version in registry.versions(MODEL)} == servable
    if servable:
        assert registry.get(Reference(MODEL)) == servable[max(servable)]
    for identity in {version.identity for version in servable.values()}:
        newest = max(number for number, version in servable.items() if version.identity == identity)
        assert registry.find(MODEL, identity) == servable[newest]
    for label, number in state.labels.items():
        assert registry.get(Reference(MODEL, label=label)) == versions[number]
    return Seen(
        {number: version.identity for number, version in versions.items()},
        state.labels,
        frozenset(state.retired),
        tuple(record.transition for record in reversed(registry.history(MODEL))),
    )


def _check_all_or_nothing(seen: Seen, before: Seen, after: Seen, operation: Operation) -> None:
    if operation.name != COLLECTION:
        assert seen in (before, after)
        return
    # It deletes one version after the other, and then notes that it did; each of them is there whole or not at all.
    assert after.versions.items() <= seen.versions.items() <= before.versions.items()
    assert seen.labels == before.labels
    assert seen.transitions in (before.transitions, after.transitions)


def _check_repeated(store: ObjectStore, operation: Operation, before: Seen, after: Seen, *, done: bool) -> None:
    registry = Registry(store, lease=_LEASE)
    operation.run(registry, "again")

    seen = _look(store)
    twice = done and operation.repeats
    assert (seen.labels, seen.retired, seen.transitions) == (after.labels, after.retired, after.transitions)
    assert len(seen.versions) == len(after.versions) + twice
    assert {*seen.versions.values()} == {*after.versions.values()}
    assert all(number in seen.versions for number in before.versions.keys() & after.versions.keys())

    assert registry.promote(MODEL, max(seen.versions), "latest", origin=Origin("somebody"))
    seen = _look(store)
    assert len(seen.transitions) == len(after.transitions) + 1

    collect_garbage(registry, "afterwards")
    cleaned = _look(store)
    assert cleaned.versions == {number: one for number, one in seen.versions.items() if number not in seen.retired}
    assert cleaned.labels == seen.labels
    assert _numbers_that_a_server_sees(store) == {*cleaned.versions}
    assert [*store.list(paths.STAGING)] == []
    assert [*store.leftovers()] == []


def _numbers_that_a_server_sees(store: ObjectStore) -> set[int]:
    """TensorFlow Serving takes a directory for a version even if it is empty."""
    native = f"{paths.MODELS}{MODEL}/{NATIVE}/"
    assert [*store.list_children(f"{paths.MODELS}{MODEL}/")] == [NATIVE]
    if store.uri.startswith("s3://"):
        return {int(name) for name in store.list_children(native)}
    return {int(child.name) for child in Path(store.uri_of(native)).iterdir()}
