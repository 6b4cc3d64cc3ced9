"""Looks at the registry in the background, again and again: an agent that waits for a store still minds its server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Literal, Protocol, TypeVar

_LONGEST_PAUSE = 30.0  # seconds between two looks at a registry that is out of reach
_PATIENCE = 30.0  # seconds after which a look that has not ended counts as one that failed

log = logging.getLogger("slipway")


class Look(Protocol):
    """What one look says."""

    @property
    def problem(self) -> str:
        """Why the registry as a whole cannot be read; empty if it can."""


_Look = TypeVar("_Look", bound=Look)
_Look_co = TypeVar("_Look_co", bound=Look, covariant=True)


class RegistryEye(Protocol[_Look_co]):
    """What looks."""

    def look(self, known: Mapping[str, int]) -> _Look_co:
        """Looks once, however long that takes.

        Args:
            known: The models that are known already, with the highest revision that was seen of each.
        """


class CountedFailures(Protocol):
    """What is told of failures."""

    def failed(self, model: str, what: Literal["registry"]) -> None:
        """Counts one."""


class RegistryWatch(Generic[_Look]):
    """Of one registry. All methods are for one thread.

    Attributes:
        problem: Why the registry cannot be read; empty if it can.
    """

    def __init__(
        self,
        view: RegistryEye[_Look],
        metrics: CountedFailures,
        *,
        interval: float,
        done: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins nothing.

        Args:
            view: What looks.
            metrics: Are told of failures.
            interval: Seconds from one look to the next.
            done: Called from another thread when a look has ended.
            clock: Tells seconds that never go back.
        """
        self.problem = ""
        self._view = view
        self._metrics = metrics
        self._interval = interval
        self._done = done
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._looking: Future[_Look] | None = None
        self._begun = 0.0
        self._due = clock()
        self._failures = 0
        self._read_at: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the registry was read last; None before the first time."""
        return None if self._read_at is None else max(0.0, self._clock() - self._read_at)

    @property
    def pause(self) -> float:
        """Seconds until the next look is due."""
        return self._interval if self._looking else max(0.0, self._due - self._clock())

    def poll(self, known: Mapping[str, int]) -> _Look | None:
        """Begins a look if one is due, and returns one that has ended.

        Args:
            known: The models that are served or were, with the highest revision that was seen of each.
        """
        now = self._clock()
        if self._looking is None:
            if now < self._due:
                return None
            self._begun = now
            self._looking = self._pool.submit(self._view.look, dict(known))
            self._looking.add_done_callback(lambda _: self._done())
        if not self._looking.done():
            if now - self._begun > _PATIENCE:
                self._note(f"it has not answered for {_PATIENCE:g} seconds")
            return None
        look, self._looking = self._looking.result(), None
        self._failures = self._failures + 1 if look.problem else 0
        pause = self._interval * 2 ** min(self._failures, 10)
        self._due = now + (min(pause, max(_LONGEST_PAUSE, self._interval)) if look.problem else self._interval)
        self._note(look.problem)
        if look.problem:
            self._metrics.failed("", "registry")
        else:
            self._read_at = now
        return look

    def close(self) -> bool:
        """Begins nothing more; tells whether nothing is under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        return self._looking is None or self._looking.done()

    def _note(self, problem: str) -> None:
        if problem and not self.problem:
            log.warning("the registry is out of reach, what is served stays: %s", problem)
        elif self.problem and not problem:
            log.info("the registry is back")
        self.problem = problem
