"""Garbage collection that is killed in the middle, and what it asks of a store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from model_registry.collection import plan
from model_registry.errors import SlipwayError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.storage import ObjectStore
from model_registry.storage.memory import MemoryStore
from tests.support.failing_stores import Front
from tests.support.fixtures_s3 import Bucket
from tests.support.garbage import (
    ANN,
    NEEDED,
    assert_clean,
    contents,
    gc,
    make_garbage,
    numbers_with_files,
    publish_many,
)


class _Killed(BaseException):
    """Nothing on the way may take it for a failure."""


class _Killing(Front):
    """Ends the process, so to speak, at one call: before it, after it, or in the middle of a deletion."""

    def __init__(self, store: ObjectStore, at: int, when: str) -> None:
        super().__init__(store)
        self._at = at
        self._when = when
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        found = getattr(self._store, name)
        return self._counted(name, found) if callable(found) else found

    def _counted(self, name: str, call: object) -> object:
        def counted(*arguments: object) -> object:
            self.calls += 1
            if self.calls != self._at:
                return call(*arguments)  # type: ignore[operator]
            if self._when == "in the middle" and name == "delete":
                keys = list(arguments[0])  # type: ignore[call-overload]
                self._store.delete(keys[: len(keys) // 2])
            elif self._when != "before":
                with suppress(SlipwayError):
                    call(*arguments)  # type: ignore[operator]
            raise _Killed

        return counted


def _copy(content: dict[str, bytes], store: ObjectStore) -> ObjectStore:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.put_new, content, content.values()))
    return store


@pytest.mark.parametrize("when", ["before", "after", "in the middle"])
def test_a_collection_that_is_killed_at_any_call_is_finished_by_the_next(tmp_path: Path, when: str) -> None:
    make_garbage(Registry(made := MemoryStore()), tmp_path)
    content = contents(made)
    unharmed = _Killing(_copy(content, MemoryStore()), 0, when)
    gc(Registry(unharmed), keep=1)
    assert unharmed.calls > 30

    for at in range(1, unharmed.calls + 1):
        registry = Registry(_copy(content, MemoryStore()))
        with suppress(_Killed):
            gc(Registry(_Killing(registry.store, at, when)), keep=1)
            raise AssertionError(f"call {at} was not made")
        assert numbers_with_files(registry.store) >= NEEDED, at
        assert registry.get(Reference.parse("digits@stable")).version == 3

        reports = [gc(registry, keep=1) for _ in range(2)]  # what is retired now is deleted by the next

        assert [report.failures for report in reports] == [(), ()], at
        assert_clean(registry)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.soak)])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where registries for the test can be made."""
    if request.param == "local":
        yield str(tmp_path / "registries")
    else:
        bucket: Bucket = request.getfixturevalue("s3_bucket")
        yield f"s3://{bucket.name}"


def test_a_collection_that_is_killed_after_a_write_is_finished_by_the_next(elsewhere: str, tmp_path: Path) -> None:
    make_garbage(made := Registry.open(f"{elsewhere}/made"), tmp_path)
    content = contents(made.store)
    for at in range(1, 100):
        registry = Registry(_copy(content, Registry.open(f"{elsewhere}/{at}").store))
        killing = _KillingAtWrites(registry.store, at, "after")
        try:
            gc(Registry(killing), keep=1)
        except _Killed:
            gc(registry, keep=1)
            gc(registry, keep=1)
            assert_clean(registry)
        else:
            break
    assert 8 < at < 99


class _KillingAtWrites(_Killing):
    """Counts nothing else."""

    def _counted(self, name: str, call: object) -> object:
        if name in {"put_new", "put_if_match", "delete", "discard", "workspace"}:
            return super()._counted(name, call)
        return call


def test_the_requests_for_a_model_do_not_grow_with_its_versions(tmp_path: Path) -> None:
    calls = []
    for count in (2, 12):
        registry = Registry(store := MemoryStore())
        publish_many(registry, tmp_path / str(count), count)
        registry.retire("digits", [1], origin=ANN)
        counting = _Killing(store, 0, "before")
        plan(Registry(counting), ["digits"], grace=0.0)
        calls.append(counting.calls)

    assert calls[0] == calls[1] == 6  # the models, the state and four listings
