"""Stores in front of another one in which something happens at one certain call: somebody else's work, or a failure.

So two writers are interleaved in one thread, and the same way every time.
"""

from __future__ import annotations

from collections.abc import Callable

from model_registry.errors import ConflictError, StorageError
from model_registry.storage import ObjectStore
from tests.support.failing_stores import Front

STATE = "/state.json"
HISTORY = "/history/"
MANIFEST = "/versions/"

WRITES = ("put_new", "put_if_match")
READS = ("get", "head", "list")


class KilledError(BaseException):
    """Ends a writer as a kill does: nothing catches it."""


class Interrupted(Front):
    """Does something before the first call of some methods whose key has a part in it, once a condition holds.

    Attributes:
        calls: Of each such call, its method and key.
    """

    def __init__(
        self,
        store: ObjectStore,
        methods: tuple[str, ...],
        part: str,
        action: Callable[[], object],
        *,
        when: Callable[[], bool] = lambda: True,
        once: bool = True,
    ) -> None:
        super().__init__(store)
        self._methods = methods
        self._part = part
        self._action = action
        self._when = when
        self._once = once
        self._done = False
        self.calls: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> object:
        found = getattr(self._store, name)
        if name not in self._methods:
            return found

        def call(key: str, *rest: object) -> object:
            if self._part in key:
                self.calls.append((name, key))
                if self._when() and not (self._once and self._done):
                    self._done = True
                    self._action()
            return found(key, *rest)

        return call


class UnheardSwaps(Front):
    """Swaps the state so often without an answer, and may be away afterwards, for reads and writes.

    Attributes:
        unheard: How many more swaps get no answer.
        afterwards: What somebody else does right after the first of them.
    """

    def __init__(
        self,
        store: ObjectStore,
        unheard: int = 1,
        *,
        done: bool = True,
        transient: bool = True,
        then_away: bool = False,
        afterwards: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(store)
        self.unheard = unheard
        self._done = done
        self._transient = transient
        self._then_away = then_away
        self._away = False
        self._afterwards: Callable[[], object] | None = afterwards

    def __getattr__(self, name: str) -> object:
        found = getattr(self._store, name)
        if name not in (*WRITES, *READS):
            return found

        def call(key: str, *rest: object) -> object:
            if self._away:
                raise StorageError("the store is away", transient=True)
            if name not in WRITES or not key.endswith(STATE) or not self.unheard:
                return found(key, *rest)
            self.unheard -= 1
            self._away = self._then_away
            if self._done:
                found(key, *rest)
            action, self._afterwards = self._afterwards, None
            if action:
                action()
            raise StorageError("the answer was lost", transient=self._transient)

        return call


class LateSwap(Front):
    """Loses the first swap of the state on its way, where it stays until it lands.

    Attributes:
        landed: Whether it changed the state when it did; None while it is under way.
    """

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self._late: Callable[[], object] | None = None
        self.landed: bool | None = None

    def __getattr__(self, name: str) -> object:
        found = getattr(self._store, name)
        if name not in WRITES:
            return found

        def call(key: str, *rest: object) -> object:
            if key.endswith(STATE) and self._late is None:
                self._late = lambda: found(key, *rest)
                raise StorageError("nothing was heard for a minute", transient=True)
            return found(key, *rest)

        return call

    def under_way(self) -> bool:
        """Whether the swap was sent, and has not landed."""
        return self._late is not None and self.landed is None

    def land(self) -> None:
        """Lets it arrive now."""
        assert self._late is not None
        try:
            self._late()
            self.landed = True
        except ConflictError:
            self.landed = False
