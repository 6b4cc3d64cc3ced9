"""Loads the versions that are aspired and unloads the others, one action at a time, keeping each model available.

Read from its source, and seen in what it does:

- A thread looks ten times a second: it forgets what ended and is no longer aspired, takes in what is newly aspired,
  and does one thing, rather an unload than a load. With no load threads, the default, that thread loads itself, so
  that one load, its retries included, holds up everything.
- A version that is no longer aspired goes only once an aspired one of the same model is ready, or none is aspired.
- A version that failed stays as it is while it is aspired. Not aspired any more, it is forgotten, so that
  asking for it again loads it again; a version that is asked for again waits until it is forgotten.
- Unloading waits for the requests that have begun.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support.model_server import servable_states
from tests.support.model_server.errors import ServingError
from tests.support.model_server.servable_states import ServableStates
from tests.support.model_server.server_log import log

_LOOK_SECONDS = 0.1
_NEW, _LOADING, _READY, _UNLOADING, _DISABLED, _ERROR = "new", "loading", "ready", "unloading", "disabled", "error"


class Loadable(Protocol):
    """What a load makes."""

    def close(self) -> None:
        """Gives back its memory."""


@dataclass
class _Harness:
    model: str
    version: int
    path: Path
    state: str = _NEW
    is_aspired: bool = True
    servable: Loadable | None = None
    users: int = 0

    def __str__(self) -> str:
        return f"{{name: {self.model} version: {self.version}}}"


class AspiredVersionsManager:
    """Holds the versions of all models.

    Args:
        load: Makes a servable of a model's name, a version and its directory; raises ServingError.
        states: Where each state goes.
        max_num_load_retries: How often a failed load is tried again.
        load_retry_seconds: Time between.
    """

    def __init__(
        self,
        load: Callable[[str, int, Path], Loadable],
        states: ServableStates,
        *,
        max_num_load_retries: int,
        load_retry_seconds: float,
    ) -> None:
        self._load = load
        self._states = states
        self._retries = max_num_load_retries
        self._retry_seconds = load_retry_seconds
        self._harnesses: dict[tuple[str, int], _Harness] = {}
        self._pending: dict[str, Mapping[int, Path]] = {}
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._loader: Executor | None = None
        self._loader_mutex = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="manage_state", daemon=True)

    def start(self, load_threads: int) -> None:
        """Begins to look, with that many threads that load."""
        self.set_load_threads(load_threads)
        self._thread.start()

    def set_load_threads(self, load_threads: int) -> None:
        """Changes their number, once what they were given is loaded or has failed."""
        with self._loader_mutex:
            if self._loader is not None:
                self._loader.shutdown(wait=True)
            self._loader = ThreadPoolExecutor(load_threads) if load_threads else None

    def stop(self) -> None:
        """Ends without waiting for requests; loads under way end first."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self.set_load_threads(0)
        for harness in self._harnesses.values():
            if harness.servable is not None and not harness.users:
                harness.servable.close()

    def aspire(self, model: str, versions: Mapping[int, Path]) -> None:
        """Says which versions of a model shall be loaded from where; taken in at the next look."""
        with self._changed:
            self._pending[model] = dict(versions)

    @contextlib.contextmanager
    def servable(self, model: str, version: int | None) -> Iterator[tuple[int, Loadable]]:
        """A version that is ready, not unloaded before the block ends.

        Args:
            model: Its name.
            version: None for the highest that is ready.

        Raises:
            ServingError: NOT_FOUND.
        """
        with self._changed:
            ready = {h.version: h for h in self._harnesses.values() if h.model == model and h.state == _READY}
            harness = ready.get(max(ready, default=-1) if version is None else version)
            if harness is None or harness.servable is None:
                asked = f"Latest({model})" if version is None else f"Specific({model}, {version})"
                raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")
            harness.users += 1
        try:
            yield harness.version, harness.servable
        finally:
            with self._changed:
                harness.users -= 1
                self._changed.notify_all()

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            with self._changed:
                self._forget()
                self._take_in()
                action = self._next_action()
            if action is not None:
                self._act(*action)

    def _forget(self) -> None:
        for key, harness in list(self._harnesses.items()):
            if not harness.is_aspired and harness.state in (_NEW, _DISABLED, _ERROR):
                del self._harnesses[key]

    def _take_in(self) -> None:
        for model, versions in list(self._pending.items()):
            known = {h.version: h for h in self._harnesses.values() if h.model == model}
            if any(version in versions and not harness.is_aspired for version, harness in known.items()):
                continue  # it was given up and is asked for again: first it has to be forgotten
            del self._pending[model]
            for version, harness in known.items():
                harness.is_aspired = version in versions
            for version in versions.keys() - known.keys():
                self._harnesses[model, version] = _Harness(model, version, versions[version])
                self._states.publish(model, version, servable_states.START)

    def _next_action(self) -> tuple[Callable[[_Harness], None], _Harness] | None:
        actions = [action for model in {h.model for h in self._harnesses.values()} if (action := self._action(model))]
        return min(actions, key=lambda action: action[0] != self._unload, default=None)

    def _action(self, model: str) -> tuple[Callable[[_Harness], None], _Harness] | None:
        harnesses = sorted((h for h in self._harnesses.values() if h.model == model), key=lambda h: h.version)
        aspired = [h for h in harnesses if h.is_aspired]
        if not aspired or any(h.state == _READY for h in aspired):
            for harness in harnesses:
                if not harness.is_aspired and harness.state == _READY:
                    return self._unload, harness
        for harness in reversed(aspired):
            if harness.state == _NEW:
                return self._load_with_retries, harness
        return None

    def _act(self, action: Callable[[_Harness], None], harness: _Harness) -> None:
        if action != self._load_with_retries:
            action(harness)
            return
        harness.state = _LOADING
        with self._loader_mutex:
            loader = self._loader
            if loader is not None:
                loader.submit(action, harness)
        if loader is None:
            action(harness)

    def _load_with_retries(self, harness: _Harness) -> None:
        log("I", "core/loader_harness.cc", f"Loading servable version {harness}")
        self._states.publish(harness.model, harness.version, servable_states.LOADING)
        error = None
        for attempt in range(self._retries + 1):
            if attempt:
                if self._stopped.wait(self._retry_seconds) or not harness.is_aspired:
                    log("I", "util/retrier.cc", f"Retrying of Loading servable: {harness} was cancelled.")
                    break
                log("I", "util/retrier.cc", f"Retrying of Loading servable: {harness} retry: {attempt}")
            try:
                servable = self._load(harness.model, harness.version, harness.path)
            except ServingError as failure:
                error = failure
                log("E", "util/retrier.cc", f"Loading servable: {harness} failed: {error}")
            else:
                self._finish_load(harness, servable)
                return
        with self._changed:
            harness.state = _ERROR
        log("E", "core/aspired_versions_manager.cc", f"Servable {harness} cannot be loaded: {error}")
        self._states.publish(harness.model, harness.version, servable_states.END, error)

    def _finish_load(self, harness: _Harness, servable: Loadable) -> None:
        with self._changed:
            harness.servable, harness.state = servable, _READY
        log("I", "core/loader_harness.cc", f"Successfully loaded servable version {harness}")
        self._states.publish(harness.model, harness.version, servable_states.AVAILABLE)

    def _unload(self, harness: _Harness) -> None:
        log("I", "core/loader_harness.cc", f"Quiescing servable version {harness}")
        self._states.publish(harness.model, harness.version, servable_states.UNLOADING)
        with self._changed:
            harness.state = _UNLOADING
            self._changed.wait_for(lambda: not harness.users or self._stopped.is_set())
            servable, harness.servable = harness.servable, None
            users = harness.users
        if servable is not None and not users:
            servable.close()
        with self._changed:
            harness.state = _DISABLED
        log("I", "core/loader_harness.cc", f"Done unloading servable version {harness}")
        self._states.publish(harness.model, harness.version, servable_states.END)
