"""Every state that each version has reached; nothing is ever forgotten, as the real server's monitor does."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.model_server.errors import ServingError

START, LOADING, AVAILABLE, UNLOADING, END = "START", "LOADING", "AVAILABLE", "UNLOADING", "END"


@dataclass(frozen=True)
class State:
    """Where a version is.

    Attributes:
        name: START, LOADING, AVAILABLE, UNLOADING or END.
        error: Why it ended, if it failed.
        order: Which event of this server it was, counted from 1.
    """

    name: str
    error: ServingError | None
    order: int


class ServableStates:
    """The states of all versions of all models."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._states: dict[str, dict[int, State]] = {}
        self._order = 0
        self._closed = False

    def publish(self, model: str, version: int, name: str, error: ServingError | None = None) -> None:
        """A version has reached a state."""
        with self._changed:
            self._order += 1
            self._states.setdefault(model, {})[version] = State(name, error, self._order)
            self._changed.notify_all()

    def close(self) -> None:
        """Lets nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def now(self) -> int:
        """How many events there were, for `wait_for`."""
        with self._changed:
            return self._order

    def of(self, model: str) -> dict[int, State]:
        """The versions of a model, the highest first; empty if nothing was ever known of it."""
        with self._changed:
            return dict(sorted(self._states.get(model, {}).items(), reverse=True))

    def wait_for(self, models: Iterable[str], *, since: int = 0, whole: bool = False) -> dict[tuple[str, int], State]:
        """Waits, for ever if need be, until some version of each model is AVAILABLE or has ended.

        Args:
            models: Their names.
            since: Events up to this one are not looked at.
            whole: Wait for all of each model's versions.

        Returns:
            Those versions that have ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or all(self._is_done(name, since, whole) for name in models))
            return {
                (name, version): state
                for name in models
                for version, state in self._reached(name, since).items()
                if state.name == END
            }

    def _is_done(self, model: str, since: int, whole: bool) -> bool:
        count = len(self._reached(model, since))
        return count == len(self._states[model]) if count and whole else bool(count)

    def _reached(self, model: str, since: int) -> dict[int, State]:
        versions = self._states.get(model, {})
        return {
            version: state
            for version, state in versions.items()
            if state.order > since and state.name in (AVAILABLE, END)
        }


def did_not_become_available(kind: str, ended: dict[tuple[str, int], State]) -> ServingError:
    """The error that names the versions that ended and why."""
    found = ", ".join(
        f"{{{{name: {model} version: {version}}}" + (f" due to error: {state.error}" if state.error else "") + "}"
        for (model, version), state in ended.items()
    )
    return ServingError("UNKNOWN", f"{len(ended)} {kind}(s) did not become available: {{{found}, }}")
