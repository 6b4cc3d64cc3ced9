"""Writers whose every call to the store waits for a word, so that a test decides how they are interleaved.

An operation runs in a thread of its own, and whoever steps it waits until it stands before its next call or
is over. So one thread runs at a time, and the same words lead to the same interleaving.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from model_registry.errors import ConflictError, StorageError
from model_registry.storage import ObjectStore
from tests.support.failing_stores import Front
from tests.support.interrupted_stores import READS, WRITES

_PATIENCE = 60.0  # seconds; only a test that is stuck waits so long
_UNGATED = {"uri", "uri_of"}

# What may befall a call: its answer is lost; it never arrives; it arrives when it is let; or it is a read, and fails.
FAULTS = ("unheard", "dropped", "late", "unread")


class SteppedWriter(Front):
    """A store as one writer sees it, and the operation that this writer is at.

    Reads that an operation makes side by side, in threads of a pool, take one word together.

    Attributes:
        faults: What befalls the next calls that it can befall, one each, and a part of the keys where it does.
        exposed: The parts of keys whose writes a fault can befall.
        late: Writes that are under way.
        faulted: How many faults there were.
    """

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.faults: list[tuple[str, str]] = []
        self.exposed: tuple[str, ...] = ()
        self.late: list[Callable[[], object]] = []
        self.faulted = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._over = True
        self._parked = False
        self._word = False
        self._pool_parked = False
        self._pool_open = False

    @property
    def busy(self) -> bool:
        """Whether an operation is not over."""
        return not self._over

    def start(self, operation: Callable[[], None]) -> None:
        """Begins an operation, which must not raise; it stands before its first call then."""
        assert not self.busy

        def run() -> None:
            try:
                operation()
            finally:
                with self._changed:
                    self._over = True
                    self._changed.notify_all()

        with self._changed:
            self._over = self._pool_open = False
            self._thread = threading.Thread(target=run, name="stepped-writer", daemon=True)
            self._thread.start()
            self._await_rest()

    def step(self) -> None:
        """Lets the operation make one call, and run on to the next one."""
        with self._changed:
            if self._over:
                return
            if self._pool_parked:
                self._pool_parked, self._pool_open = False, True
            else:
                self._parked, self._word = False, True
            self._changed.notify_all()
            self._await_rest()

    def finish(self) -> None:
        """Lets the operation come to its end."""
        for _ in range(10_000):
            if not self.busy:
                return
            self.step()
        raise AssertionError("an operation does not come to its end")

    def land(self) -> None:
        """Lets the writes arrive that are under way; those that come too late change nothing."""
        late, self.late = self.late, []
        for write in late:
            try:
                write()
            except ConflictError:
                continue

    def __getattr__(self, name: str) -> object:
        found = getattr(self._store, name)
        if name in _UNGATED:
            return found

        def call(*arguments: object) -> object:
            own = threading.current_thread() is self._thread
            self._await_word(own=own)
            fault = self._fault_of(name, str(arguments[0]) if arguments else "") if own else None
            if fault is None:
                return found(*arguments)
            del self.faults[0]
            self.faulted += 1
            if fault == "unheard":
                found(*arguments)
            elif fault == "late":
                self.late.append(lambda: found(*arguments))
            raise StorageError(f"{fault}: {name} {arguments[0]}", transient=True)

        return call

    def _fault_of(self, name: str, key: str) -> str | None:
        if not self.faults:
            return None
        fault, part = self.faults[0]
        if fault == "unread":
            befallen = name in READS
        else:
            befallen = name in WRITES and any(exposed in key for exposed in self.exposed)
        return fault if befallen and part in key else None

    def _await_word(self, *, own: bool) -> None:
        if threading.current_thread().name == "renew-claim":  # after seconds, if a test is held up
            return
        with self._changed:
            if own:
                self._pool_open = False
                self._parked = True
                self._changed.notify_all()
                assert self._changed.wait_for(lambda: self._word, _PATIENCE)
                self._word = False
            elif not self._pool_open:
                self._pool_parked = True
                self._changed.notify_all()
                assert self._changed.wait_for(lambda: self._pool_open, _PATIENCE)

    def _await_rest(self) -> None:
        assert self._changed.wait_for(lambda: self._parked or self._pool_parked or self._over, _PATIENCE)
