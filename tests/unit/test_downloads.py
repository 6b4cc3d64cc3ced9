"""Downloads in the background: two at once, and later each time one fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from model_registry.errors import StorageError
from model_registry.servable import NATIVE, PayloadFile, Variant
from model_registry.serving.sync.downloads import Downloads

VARIANT = Variant(NATIVE, (PayloadFile("saved_model.pb", 100, "0" * 64),))


class Bench:
    """Downloads that end when a test says so, by a clock that it moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ended = threading.Semaphore(0)
        self.downloads = Downloads(self.ended.release, clock=lambda: self.now)

    def begin(self, version: int) -> Future[None]:
        """Begins one, which ends as the future does."""
        told: Future[None] = Future()
        self.downloads.begin(("digits", version), VARIANT, lambda: told.result(30))
        return told

    def may_begin(self, version: int) -> bool:
        return self.downloads.may_begin(("digits", version))

    def fail(self, version: int) -> None:
        assert self.may_begin(version)
        self.begin(version).set_exception(StorageError("the line is cut"))
        assert self.ended.acquire(timeout=30)
        assert {*self.downloads.collect()} == {("digits", version)}


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    assert found.downloads.close(30)


def test_two_are_under_way_at_once(bench: Bench) -> None:
    one, two = bench.begin(1), bench.begin(2)

    assert not bench.may_begin(3)
    assert bench.downloads.size == 200
    one.set_result(None)
    assert bench.ended.acquire(timeout=30)
    assert bench.downloads.collect() == {("digits", 1): None}
    assert bench.may_begin(3)
    assert not bench.may_begin(2)
    two.set_result(None)


def test_one_that_fails_waits_longer_each_time_and_five_minutes_at_most(bench: Bench) -> None:
    pauses = []
    for _ in range(9):
        bench.fail(1)
        begun = bench.now
        while not bench.may_begin(1):
            bench.now += 1
        pauses.append(bench.now - begun)

    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert bench.downloads.failures == {("digits", 1): "the line is cut"}


def test_one_that_is_asked_for_again_does_not_wait(bench: Bench) -> None:
    bench.fail(1)
    assert not bench.may_begin(1)

    assert bench.downloads.again(("digits", 1))

    assert bench.may_begin(1)
    assert not bench.downloads.again(("digits", 1))


def test_what_nobody_wants_is_forgotten(bench: Bench) -> None:
    bench.fail(1)

    bench.downloads.forget(set())

    assert bench.may_begin(1)


def test_what_nobody_expected_is_raised(bench: Bench) -> None:
    bench.begin(1).set_exception(ZeroDivisionError())
    assert bench.ended.acquire(timeout=30)

    with pytest.raises(ZeroDivisionError):
        bench.downloads.collect()


def test_nothing_begins_after_the_end_and_what_hangs_is_told(bench: Bench) -> None:
    hanging = bench.begin(1)

    assert not bench.downloads.close(0.01)
    assert not bench.may_begin(2)
    hanging.set_result(None)
    assert bench.downloads.close(30)
