"""Garbage collection beside publishers, promotions, readers and another one, on every store."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_registry import paths
from model_registry.claims import Claim
from model_registry.collection import Plan, Report, collect, plan
from model_registry.errors import ConflictError, NotFoundError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.storage import ObjectStore
from tests.support.failing_stores import Front
from tests.support.garbage import (
    ANN,
    HOUR,
    Refusing,
    abandon,
    assert_clean,
    gc,
    kinds,
    make_garbage,
    numbers_with_files,
    publish_many,
)
from tests.support.interrupted_stores import Interrupted
from tests.support.publishers import (
    SlowStore,
    payload_keys,
    publish,
    wait_until,
)


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    return Registry(store, lease=2.0)


def test_a_publisher_that_renews_its_claim_is_no_orphan(registry: Registry) -> None:
    store = registry.store
    abandon(store, 1)
    wait_until(lambda: all(info.age >= 4.0 for info in store.list("")))
    assert kinds(plan(registry, grace=4.0)) == [("orphan", "digits:1")]
    stored = store.get(key := paths.claim("digits", "dead"))
    store.put_if_match(key, Claim.from_json(stored.data, key=key).renewed().to_json(), stored.etag)

    assert kinds(plan(registry, grace=4.0)) == []


def test_a_publisher_slower_than_the_grace_loses_and_its_files_go(registry: Registry, tmp_path: Path) -> None:
    slow = SlowStore(registry.store)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(publish, Registry(slow, lease=2.0), tmp_path / "late")
        assert slow.uploading.wait(30)
        assert kinds(gc(registry)) == [("orphan", "digits:1")]
        slow.go_on.set()

        with pytest.raises(ConflictError, match="digits:1 was given up while it was uploaded: reserved and never"):
            late.result(60)
    assert payload_keys(registry.store) == []
    assert publish(registry, tmp_path / "again")[0].version == 2


def test_a_publisher_that_commits_before_the_tombstone_wins(registry: Registry, tmp_path: Path) -> None:
    slow = SlowStore(registry.store)
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(publish, Registry(slow, lease=2.0), tmp_path / "late")
        assert slow.uploading.wait(30)
        planned = plan(registry, grace=0.0)
        slow.go_on.set()
        version, _ = published.result(60)

    report = collect(registry, planned, origin=ANN)

    assert (kinds(planned), report.items, report.failures) == ([("orphan", "digits:1")], (), ())
    assert "somebody else was first" in report.notes[0].why
    assert registry.verify(version) == []


def test_what_a_late_publisher_uploads_after_all_is_swept_again(registry: Registry, tmp_path: Path) -> None:
    slow = SlowStore(registry.store)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(publish, Registry(Refusing(slow, paths.MODELS), lease=2.0), tmp_path / "late")
        assert slow.uploading.wait(30)
        gc(registry)
        slow.go_on.set()
        assert isinstance(late.exception(60), ConflictError)
    assert numbers_with_files(registry.store) == {1}

    report = gc(registry, grace=HOUR)

    assert kinds(report) == [("remains", "digits:1")]
    assert payload_keys(registry.store) == []
    assert plan(registry, grace=0.0).items == ()


def test_two_collections_at_once_do_what_one_does(registry: Registry, tmp_path: Path) -> None:
    make_garbage(registry, tmp_path)
    planned = [plan(registry, keep=1, grace=0.0) for _ in range(4)]
    barrier = threading.Barrier(4)

    def compete(one: Plan) -> Report:
        barrier.wait(30)
        return collect(registry, one, origin=ANN)

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(compete, planned))

    assert [report.failures for report in reports] == [()] * 4
    gc(registry)
    assert_clean(registry)


def test_a_promotion_beside_gc_wins_or_conflicts_and_never_names_what_is_deleted(
    registry: Registry, tmp_path: Path
) -> None:
    publish_many(registry, tmp_path, 8)
    outcomes = set()
    for version in range(1, 8):
        barrier = threading.Barrier(2)

        def promote(version: int = version, barrier: threading.Barrier = barrier) -> str:
            barrier.wait(30)
            try:
                registry.promote("digits", version, "canary", origin=ANN)
            except (ConflictError, NotFoundError) as error:
                return type(error).__name__
            return "promoted"

        def sweep(barrier: threading.Barrier = barrier) -> None:
            barrier.wait(30)
            for _ in range(2):
                assert gc(registry, "digits", keep=1).failures == ()

        with ThreadPoolExecutor(2) as pool:
            promoted, swept = pool.submit(promote), pool.submit(sweep)
            outcomes.add(promoted.result(60))
            swept.result(60)
        state = registry.state("digits")
        assert all(registry.get(Reference("digits", version=number)) for number in state.needed())
        for number in state.needed():
            assert registry.verify(registry.get(Reference("digits", version=number))) == []
    assert outcomes <= {"promoted", "ConflictError", "NotFoundError"}


def test_a_promotion_that_was_held_up_while_its_version_was_collected_fails(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 2)
    held = _HeldSwaps(registry.store)
    with ThreadPoolExecutor(1) as pool:
        promoted = pool.submit(Registry(held).promote, "digits", 1, "stable", origin=ANN)
        assert held.swapping.wait(30)
        registry.retire("digits", [1], origin=ANN)
        assert kinds(gc(registry)) == [("version", "digits:1")]
        held.go_on.set()

        assert isinstance(promoted.exception(60), (ConflictError, NotFoundError))
    assert registry.state("digits").labels == {}


class _HeldSwaps(Front):
    """Holds up whoever is about to write a state, until it is told to go on."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.swapping = threading.Event()
        self.go_on = threading.Event()

    def put_new(self, key: str, data: bytes) -> str:
        self._hold(key)
        return self._store.put_new(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        self._hold(key)
        return self._store.put_if_match(key, data, etag)

    def _hold(self, key: str) -> None:
        if key.endswith("/state.json"):
            self.swapping.set()
            assert self.go_on.wait(60)


def test_a_label_that_moves_to_a_version_between_plan_and_retirement_keeps_it(
    registry: Registry, tmp_path: Path
) -> None:
    publish_many(registry, tmp_path, 4)
    planned = plan(registry, keep=1, grace=0.0)
    registry.promote("digits", 2, "stable", origin=ANN)

    report = collect(registry, planned, origin=ANN)

    assert kinds(report) == [("retire", "digits:3"), ("retire", "digits:1")]
    assert [note.name for note in report.notes] == ["digits:2"]
    assert list(registry.state("digits").retired) == [1, 3]


def test_readers_by_label_always_find_a_version_while_others_are_collected(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 6)
    registry.promote("digits", 1, "stable", origin=ANN)
    ended = threading.Event()

    def read() -> set[int]:
        found = set()
        while not ended.is_set():
            found.add(registry.get(Reference.parse("digits@stable")).version)
        return found

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for version in range(2, 7):
                registry.promote("digits", version, "stable", origin=ANN)
                registry.retire("digits", [version - 1], origin=ANN, forget=True)
                assert kinds(gc(registry, "digits")) == [("version", f"digits:{version - 1}")]
        finally:
            ended.set()
        seen = set().union(*(reader.result(60) for reader in readers))

    assert seen <= set(range(1, 7))
    assert numbers_with_files(registry.store) == {6}


@pytest.mark.parametrize("after", ["/state.json", "/versions/1.json"])
def test_a_version_that_is_collected_while_it_is_looked_for_is_not_used_again(
    registry: Registry, tmp_path: Path, after: str
) -> None:
    publish(registry, tmp_path / "1")
    registry.retire("digits", [1], origin=ANN)
    interrupted = Interrupted(registry.store, ("get",), after, lambda: gc(registry))

    assert Registry(interrupted).find("digits", "a1") is None


@pytest.mark.parametrize("after", ["/state.json", "/versions/1.json"])
def test_a_version_that_is_collected_while_it_is_published_again_gets_a_new_number(
    registry: Registry, tmp_path: Path, after: str
) -> None:
    publish(registry, tmp_path / "1")
    registry.retire("digits", [1], origin=ANN)
    interrupted = Interrupted(registry.store, ("get",), after, lambda: gc(registry))

    version, reused = publish(Registry(interrupted, lease=2.0), tmp_path / "2")

    assert not reused
    assert registry.verify(registry.get(Reference("digits", version=version.version))) == []
