"""Downloads in the background: two at once, and one that failed is tried again, later each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from model_registry.errors import SlipwayError
from model_registry.servable import Variant

AT_ONCE = 2

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0  # seconds

What = tuple[str, int]  # model and version


@dataclass(frozen=True)
class Failure:
    """A download that failed.

    Attributes:
        why: For a person.
        times: How often in a row.
        again: When it is tried again, by the clock.
    """

    why: str
    times: int
    again: float


class Downloads:
    """Of versions. All methods are for one thread, but `stopped` may be set by any."""

    def __init__(self, done: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins nothing.

        Args:
            done: Called from a thread of its own when one has ended, so that somebody looks.
            clock: Tells seconds that never go back.
        """
        self.stopped = threading.Event()
        self._done = done
        self._clock = clock
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="download")
        self._running: dict[What, Future[None]] = {}
        self._variants: dict[What, Variant] = {}
        self._failures: dict[What, Failure] = {}

    @property
    def running(self) -> dict[What, Variant]:
        """What is under way."""
        return {what: self._variants[what] for what in self._running}

    @property
    def size(self) -> int:
        """Bytes of all that is under way, as it will lie on the disk."""
        return sum(variant.bytes for variant in self.running.values())

    @property
    def failures(self) -> dict[What, str]:
        """Why those that failed last, and did not arrive since, did."""
        return {what: failure.why for what, failure in self._failures.items()}

    def failure(self, what: What) -> Failure | None:
        """How a version failed last, if it did not arrive since."""
        return self._failures.get(what)

    def may_begin(self, what: What) -> bool:
        """Whether there is room for another, and this one's pause is over."""
        failure = self._failures.get(what)
        waited = failure is None or self._clock() >= failure.again
        return waited and what not in self._running and len(self._running) < AT_ONCE and not self.stopped.is_set()

    def begin(self, what: What, variant: Variant, bring: Callable[[], None]) -> None:
        """Begins one.

        Args:
            what: Model and version.
            variant: Of it.
            bring: Brings it here; runs in a thread of its own.
        """
        self._variants[what] = variant
        self._running[what] = future = self._pool.submit(bring)
        future.add_done_callback(lambda _: self._done())

    def collect(self) -> dict[What, SlipwayError | None]:
        """Those that ended since: None where it arrived.

        Raises:
            Exception: What `bring` raised without expecting it.
        """
        ended: dict[What, SlipwayError | None] = {}
        for what in [what for what, future in self._running.items() if future.done()]:
            future = self._running.pop(what)
            try:
                future.result()
            except SlipwayError as error:
                ended[what] = error
                self.fail(what, str(error))
            else:
                ended[what] = None
                self._failures.pop(what, None)
        return ended

    def fail(self, what: What, why: str) -> None:
        """Notes that one failed, or could not begin; it is tried again after a pause."""
        before = self._failures.get(what)
        times = before.times + 1 if before else 1
        pause = min(_FIRST_PAUSE * 2 ** min(times - 1, 10), _LONGEST_PAUSE)
        self._failures[what] = Failure(why, times, self._clock() + pause)

    def again(self, what: What) -> bool:
        """Ends the pause of one that failed; tells whether there was one."""
        return self._failures.pop(what, None) is not None

    def forget(self, wanted: Collection[What]) -> None:
        """Forgets the failures of what nobody wants any more."""
        self._failures = {what: failure for what, failure in self._failures.items() if what in wanted}

    def close(self, timeout: float) -> bool:
        """Begins nothing more, and waits a while for those under way; tells whether all have ended."""
        self.stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not wait(self._running.values(), timeout).not_done
