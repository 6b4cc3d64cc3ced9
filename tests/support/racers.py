"""What each of several processes does to one registry while the others do the same.

The functions run in processes that are started once; a barrier lets all of them begin each round together.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import TypeVar

from model_registry.errors import ConflictError
from model_registry.registry import Registry
from model_registry.state import Origin
from model_registry.storage import open_store
from tests.support.operations import MODEL, publish_as_a_run

RACERS = 8
LABEL = "stable"

# Who waits for another looks ten times in this, and the machine has more processes than cores.
_LEASE = 5.0
_TOGETHER = 120.0  # seconds that one waits for the others
_ALL_DONE = 600.0

_Result = TypeVar("_Result")

_barrier: Barrier | None = None


@dataclass(frozen=True)
class Published:
    """What a racer was told of its publishing."""

    version: int
    identity: str
    reused: bool


class Race:
    """Processes that wait for work."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def run(self, work: Callable[[Registry, int], _Result], url: str, environ: Mapping[str, str]) -> list[_Result]:
        """Lets all of them do it at once; returns the answers by the racer's number, from 0.

        Args:
            work: Takes the registry and the racer's number; every racer calls `wait_for_all` equally often.
            url: Of the registry.
            environ: Variables that make it reachable.
        """
        jobs = [self._pool.submit(_start, work, url, dict(environ), number) for number in range(RACERS)]
        return [job.result(_ALL_DONE) for job in jobs]


@contextmanager
def start_racers() -> Iterator[Race]:
    """Starts the processes at their first race, and ends them."""
    context = get_context("forkserver")  # which imports once for all of them, and has no connections or threads
    context.set_forkserver_preload([__name__, "model_registry.storage.s3"])
    barrier = context.Barrier(RACERS)
    with ProcessPoolExecutor(RACERS, mp_context=context, initializer=_join, initargs=(barrier,)) as pool:
        yield Race(pool)


def wait_for_all() -> None:
    """Returns when every racer has called it."""
    assert _barrier
    _barrier.wait(_TOGETHER)


def publish_many(count: int, registry: Registry, number: int) -> list[Published]:
    """Publishes versions of as many identities, all of its own."""
    return [_publish(registry, f"p{number}-{which}", f"run-{number}-{which}") for which in range(count)]


def publish_the_same(rounds: int, registry: Registry, number: int) -> list[Published]:
    """Publishes in each round what everybody publishes."""
    published = []
    for which in range(rounds):
        wait_for_all()
        published.append(_publish(registry, f"same-{which}", f"run-{number}-{which}"))
    return published


def move_the_label(rounds: int, registry: Registry, number: int) -> list[int | None]:
    """Moves the label in each round to a version of its own, expecting what it named before.

    Returns:
        For each round the version if this racer won, and None if it got a ConflictError.
    """
    won: list[int | None] = []
    for which in range(rounds):
        expected = registry.state(MODEL).labels.get(LABEL)
        version = label_target(number, which)
        wait_for_all()  # so all of them expect the same
        try:
            registry.promote(MODEL, version, LABEL, expect=expected, origin=Origin(f"racer-{number}", why=str(which)))
            won.append(version)
        except ConflictError:
            won.append(None)
        wait_for_all()
    return won


def label_target(number: int, which: int) -> int:
    """A version that nobody else moves to, and that the label does not name from the round before."""
    return 1 + number + RACERS * (which % 2)


def _publish(registry: Registry, identity: str, run: str) -> Published:
    version, reused = publish_as_a_run(registry, run, identity)
    return Published(version.version, version.identity, reused)


def _join(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603  # the only way from a pool's start to its work
    _barrier = barrier


def _start(work: Callable[[Registry, int], _Result], url: str, environ: dict[str, str], number: int) -> _Result:
    os.environ.update(environ)
    tempfile.tempdir = environ.get("TMPDIR")
    registry = Registry(open_store(url), lease=_LEASE)
    registry.models()  # connects
    try:
        wait_for_all()
        return work(registry, number)
    except BaseException:
        assert _barrier
        _barrier.abort()  # or the others would wait for us
        raise
