"""Holding on to a rollout in the registry: going on where the store is away, ending where another took over.

A lead knows the very traffic that it left there last. Whatever else it finds was done by somebody else: it was paused,
aborted, or taken up by another run, whose epoch is higher. A transition that was decided on the old traffic then
changes nothing, since the registry swaps the state only where it is what the transition was decided on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeVar

from model_registry.errors import ConflictError, NotFoundError, SlipwayError, StorageError
from model_registry.evidence import Evidence
from model_registry.journal import new_write_id
from model_registry.registry import Registry
from model_registry.state import Origin, Record, State, Transition
from model_registry.traffic import Traffic

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds

_LOOKED_BACK = 100  # transitions

_Answer = TypeVar("_Answer")


class Overruled(Exception):  # noqa: N818 - nothing is wrong: somebody has the right to
    """Somebody paused or aborted the rollout.

    Attributes:
        outcome: Which of the two.
        who: By whom.
        why: What they said; empty for nothing.
        state: As it was found.
    """

    def __init__(self, outcome: Literal["paused", "aborted"], who: str, why: str, state: State) -> None:
        super().__init__(outcome, who, why)
        self.outcome: Literal["paused", "aborted"] = outcome
        self.who = who
        self.why = why
        self.state = state


class Lead:
    """One run's hold on one rollout.

    Attributes:
        origin: Who leads, why, and in which flow run.
        traffic: As it was left last; None when it is over.
        revision: Of the state in which it was seen first.
        state: As it was read last.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        state: State,
        *,
        origin: Origin,
        patience: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        told: Callable[[Record], None],
    ) -> None:
        """Takes what is in a state for its own.

        Args:
            registry: Where the state lies.
            model: Whose it is.
            state: As it was read, or made, with a rollout under way.
            origin: Who leads.
            patience: Seconds that the store may be away.
            clock: Tells seconds that never go back.
            sleep: Waits some seconds.
            told: Learns of each transition that is made.
        """
        self._registry = registry
        self._model = model
        self.origin = origin
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._told = told
        self.state = state
        self.traffic: Traffic | None = state.traffic
        self.revision = state.revision

    def check(self) -> None:
        """Reads the state.

        Raises:
            Overruled: If somebody paused or aborted the rollout.
            ConflictError: If another run took it up.
            StorageError: If the store is away for too long, or will not be read.
            FormatError: If the state cannot be trusted.
        """
        self.state = self._patiently(self._read)
        if self.state.traffic != self.traffic:
            raise self._taken_away()

    def history(self, limit: int) -> list[Record]:
        """What was done to the model, the last transition first.

        Args:
            limit: Of how many transitions.

        Raises:
            StorageError: If the store is away; it is not waited for.
            FormatError: If a transition cannot be read.
        """
        return self._registry.history(self._model, limit)

    def change(self, transition: Transition, *, why: str = "", evidence: tuple[Evidence, ...] = ()) -> None:
        """Makes a transition that was decided on `traffic`, once, however often the store fails meanwhile.

        Args:
            transition: What is done.
            why: For history.
            evidence: Likewise.

        Raises:
            Overruled: As `check` does, with the others.
        """
        assert transition.traffic is not None and transition.traffic.before == self.traffic
        origin = replace(self.origin, why=why, evidence=evidence)
        write_id = new_write_id()

        def write() -> Record:
            record = self._registry.change_traffic(self._model, lambda _: transition, origin=origin, write_id=write_id)
            assert record is not None
            return record

        def change() -> Record:
            try:
                try:
                    return write()
                except NotFoundError:
                    self._read()  # a disk that is not mounted has no version either
                    return write()
            except (ConflictError, StorageError) as error:
                # What was not heard of may have been done all the same, at once or by the time it is tried again.
                # That the state is as this run meant to leave it proves nothing: others end a rollout, too.
                self.state = self._read()
                if self.state.traffic != self.traffic:
                    if made := self._made(write_id):
                        return made
                    raise self._taken_away() from None
                if isinstance(error, StorageError):
                    raise StorageError(error.message, hint=error.hint, transient=True) from error
                raise

        record = self._patiently(change)
        self.traffic = transition.traffic.after
        self.revision = record.revision
        self.state = replace(self.state, traffic=self.traffic, revision=record.revision, last_transition=record)
        self._told(record)

    def _read(self) -> State:
        state = self._registry.state(self._model)
        if state.last_transition is None:  # an empty one: a disk that is not mounted looks like that
            raise StorageError(
                f"the state of {self._model} is gone from the registry: expected revision {self.revision} or higher",
                transient=True,
            )
        return state

    def _made(self, write_id: str) -> Record | None:
        """The record of a write that was not heard of; None if it was not made."""
        last = self.state.last_transition
        if last and last.write_id == write_id:
            return last
        history = self._registry.history(self._model, _LOOKED_BACK)
        return next((record for record in history if record.write_id == write_id), None)

    def _patiently(self, ask: Callable[[], _Answer]) -> _Answer:
        since: float | None = None
        pause = _FIRST_PAUSE
        while True:
            try:
                return ask()
            except StorageError as error:
                since = self._clock() if since is None else since
                lasted = self._clock() - since
                if not error.transient or lasted >= self._patience:
                    raise self._away(error, lasted) from error
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _away(self, error: StorageError, lasted: float) -> StorageError:
        weight = self.traffic.weight if self.traffic else 0
        tried = f", after {lasted:.0f} s of trying" if lasted else ""
        return StorageError(
            f"{error.message}{tried}; the rollout of {self._model} stays as it is, with {weight} % of the requests",
            hint=f"when the registry answers again: slipway rollout {self._model} --resume",
        )

    def _last_of_a_rollout(self) -> Record | None:
        """What was done to a rollout last: labels beside it move too, by people who have nothing to do with it."""
        last = self.state.last_transition
        if last is None or last.transition.traffic:
            return last
        try:
            history = self._registry.history(self._model, _LOOKED_BACK)
        except SlipwayError:
            return last
        return next((record for record in history if record.transition.traffic), last)

    def _taken_away(self) -> SlipwayError | Overruled:
        """What it means that another traffic is there than was left."""
        mine, state = self.traffic, self.state
        there, last = state.traffic, self._last_of_a_rollout()
        assert mine is not None and last is not None
        who = last.origin.who
        ended = last.transition.traffic.before if there is None and last.transition.traffic else None
        of_it = there or ended
        if of_it and of_it.candidate == mine.candidate and of_it.outcome == "aborted":
            return Overruled("aborted", who, last.origin.why, state)
        if there and there.epoch == mine.epoch and there.paused:
            return Overruled("paused", who, there.paused, state)
        found = "it is over" if there is None else f"epoch {there.epoch}, {there.phase}, {there.weight} %"
        return ConflictError(
            f"fenced off: the rollout of {self._model}:{mine.candidate} was taken up by another run: expected epoch "
            f"{mine.epoch}, found {found}; last changed by {who}",
            hint=f"see `slipway rollout {self._model} --status` and `slipway history {self._model}`",
        )
