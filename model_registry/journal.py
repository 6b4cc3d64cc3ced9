"""Reads and swaps a model's state, and keeps its history.

`state.json` holds the last transition. Who makes the next one lays that down in `history/` first, from
the very document that is swapped: so no transition is ever lost, whoever is killed when. A write whose
answer was lost is found again by its write id, in the state or in history.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from model_registry import paths, transitions
from model_registry.documents import now
from model_registry.errors import ConflictError, FormatError, NotFoundError, StorageError
from model_registry.parallel import in_parallel
from model_registry.patience import insist
from model_registry.state import Origin, Record, State, Transition
from model_registry.storage.base import ObjectStore

# Other writers that may come in between, one after the other, before one gives up.
_ROUNDS = 100
_ATTEMPTS = 5
_BATCH = 200  # records that are read at once

_Answer = TypeVar("_Answer")


def new_write_id() -> str:
    """What one write is known by, whatever becomes of its answer."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class StoredState:
    """A state as it was read.

    Attributes:
        state: The empty one where no transition was made yet.
        etag: Of its document; None where there is none.
        age: Seconds since it was written, by the store's clock.
    """

    state: State
    etag: str | None
    age: float


class Journal:
    """The state of one model and the way it came about."""

    def __init__(self, store: ObjectStore, model: str) -> None:
        self._store = store
        self._model = paths.check_model_name(model)
        self._key = paths.state(model)

    def read(self) -> StoredState:
        """Reads the state.

        Raises:
            FormatError: If it cannot be trusted.
        """
        try:
            stored = self._store.get(self._key)
        except NotFoundError:
            return StoredState(State(), None, 0.0)
        return StoredState(State.from_json(stored.data, key=self._key), stored.etag, stored.age)

    def commit(
        self,
        transition: Transition,
        seen: StoredState,
        *,
        origin: Origin,
        confirm: Callable[[], None] | None = None,
        write_id: str = "",
    ) -> Record:
        """Makes a transition: applies it to the state that is there, and swaps that.

        Args:
            transition: What was decided.
            seen: The state it was decided on. Other transitions may have been made since.
            origin: Who does it, and why.
            confirm: Looks again at what else the decision rests on, where another transition came first: a
                version may have been retired and collected meanwhile. What it raises ends the attempt.
            write_id: By which the write is known, from `new_write_id`; empty for one of its own. Who tries again
                after a failure gives the same.

        Returns:
            The record of it, once it is durable.

        Raises:
            ConflictError: If the state no longer is what the transition needs; nothing was changed.
            FormatError: If state and history contradict each other.
            StorageError: If the store failed; the message says if it cannot be told what became of it.
        """
        write_id, when = write_id or new_write_id(), now()
        failures = 0
        unheard: StorageError | None = None  # of a swap of the state that was seen, which may be under way still
        for attempt in range(_ROUNDS):
            record = Record(seen.state.revision + 1, transition, origin, when, write_id)
            after = transitions.apply(seen.state, record, model=self._model)
            try:
                _insist(partial(self._lay_down, seen))
            except StorageError:
                if unheard:
                    raise self._cannot_be_told(unheard) from unheard
                raise
            failure: StorageError | None = None
            try:
                self._swap(after, seen.etag)
                return record
            except ConflictError:
                pass
            except StorageError as error:
                if not error.transient and not unheard:
                    raise
                failure, failures = error, failures + 1
            found = self._look(record, failure or unheard, failures)
            if found is None:
                return record
            if attempt > 2 or failure:  # a crowd, or a store that is away for a moment
                _pause(attempt)
            if found.etag == seen.etag:
                unheard = failure or unheard
            else:
                unheard = None
                if confirm:
                    confirm()
            seen = found
        raise ConflictError(
            f"{self._model}: {_ROUNDS} other transitions came first, nothing was changed", hint="try again later"
        )

    def history(self, limit: int | None = None) -> list[Record]:
        """The transitions, the last one first.

        Args:
            limit: How many at most; None for all.

        Raises:
            FormatError: If one is missing, or cannot be trusted.
        """
        last = self.read().state.last_transition
        if last is None:
            return []
        numbers = range(last.revision - 1, 0, -1)
        if limit is not None:
            numbers = numbers[: max(0, limit - 1)]
        records = [last]
        # In batches: a revision that somebody made up costs no more than the first record that is missing.
        for start in range(0, len(numbers), _BATCH):
            records += in_parallel(self._record, numbers[start : start + _BATCH])
        return records[:limit]

    def _swap(self, after: State, etag: str | None) -> None:
        if etag is None:
            self._store.put_new(self._key, after.to_json())
        else:
            self._store.put_if_match(self._key, after.to_json(), etag)

    def _lay_down(self, seen: StoredState) -> None:
        """Writes the last transition into history, from the state that is about to be swapped."""
        last = seen.state.last_transition
        if last is None:
            self._refuse_lost_state()
            return
        told = last
        try:
            self._store.put_new(paths.record(self._model, last.revision), last.to_json())
        except ConflictError:
            told = self._record(last.revision)
        # A store that had lost answers takes the very bytes for a write of its own, and tells of no conflict.
        if told != last or self._is_old(seen):
            raise FormatError(
                f"{self._key} has revision {last.revision}, and history goes on from there or tells another "
                "transition: an older copy of the state was put back",
                hint=f"see the records under {self._store.uri_of(paths.history(self._model))}, and put the state "
                "back that follows the highest",
            )

    def _is_old(self, seen: StoredState) -> bool:
        """Whether history holds what came after a state that is there still."""
        try:
            self._store.head(paths.record(self._model, seen.state.revision + 1))
        except NotFoundError:
            return False
        return self.read().etag == seen.etag

    def _refuse_lost_state(self) -> None:
        numbers = [paths.version_of(info.key) for info in self._store.list(paths.history(self._model))]
        highest = max((number for number in numbers if number), default=0)
        if highest and self.read().etag is None:  # else others made the first transitions meanwhile
            raise FormatError(
                f"{self._key} is gone: expected revision {highest + 1} or higher, since history holds {highest}",
                hint="put the state back from a backup; a new one would forget every label",
            )

    def _made(self, record: Record, state: State) -> bool:
        """Whether the state or history has the transition that somebody else's swap, or no answer, left in doubt."""
        if state.revision < record.revision:
            return False
        found = state.last_transition if state.revision == record.revision else self._record(record.revision)
        return found is not None and found.write_id == record.write_id

    def _record(self, revision: int) -> Record:
        key = paths.record(self._model, revision)
        try:
            record = Record.from_json(self._store.get(key).data, key=key)
        except NotFoundError:
            raise FormatError(
                f"{key} is missing from the history of {self._model}", hint="somebody deleted it; restore a backup"
            ) from None
        if record.revision != revision:
            raise FormatError(f"{key} is the record of revision {record.revision}, expected {revision}")
        return record

    def _look(self, record: Record, failure: StorageError | None, failures: int) -> StoredState | None:
        """The state after a swap that did not go through, or did so unheard: then None."""
        try:
            found = _insist(self.read)
            if _insist(partial(self._made, record, found.state)):
                return None
            if failure is None or failures < _ATTEMPTS:
                return found
        except StorageError as error:
            failure = failure or error
        raise self._cannot_be_told(failure) from failure

    def _cannot_be_told(self, failure: StorageError) -> StorageError:
        return StorageError(
            f"{failure.message}; whether {self._model} was changed cannot be told",
            hint=f"see `slipway history {self._model}` before trying again",
        )


def _insist(ask: Callable[[], _Answer]) -> _Answer:
    return insist(ask, lambda attempt: _pause(attempt - 1))


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, min(1.0, 0.02 * 2**attempt)))  # noqa: S311
