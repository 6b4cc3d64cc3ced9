"""How an agent goes on: it looks again and again, sooner where something happened, until it is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SLICE = 0.25  # seconds within which a request to stop is heard
_STUCK = 120.0  # seconds without a whole look after which an agent had better be restarted


class AgentLoop:
    """Of one agent. `wake` and `healthy` are for any thread, all else for one."""

    def __init__(self, *, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins as if a look had just ended.

        Args:
            interval: The most seconds that there should be between two looks.
            clock: Tells seconds that never go back.
        """
        self._interval = interval
        self._clock = clock
        self._woken = threading.Event()
        self._looked_at = clock()

    def run(self, stop: threading.Event, look: Callable[[], None], pause: Callable[[], float]) -> None:
        """Looks until it is told to stop.

        Args:
            stop: Tells it.
            look: What is done each time.
            pause: Seconds until the next look, asked after each.
        """
        while not stop.is_set():
            self._woken.clear()
            look()
            self.wait(stop, pause())

    def wait(self, stop: threading.Event, seconds: float) -> None:
        """Waits so long, or until something happened, or it is to stop."""
        until = self._clock() + seconds
        while not stop.is_set() and (left := until - self._clock()) > 0 and not self._woken.wait(min(left, _SLICE)):
            pass

    def wake(self) -> None:
        """Something happened: the next look is due at once."""
        self._woken.set()

    def looked(self) -> None:
        """A look has ended."""
        self._looked_at = self._clock()

    def healthy(self) -> bool:
        """Whether it goes on looking."""
        return self._clock() - self._looked_at < _STUCK + self._interval
