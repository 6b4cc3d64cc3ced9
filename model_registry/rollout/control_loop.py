"""The control loop of a rollout: reads the state, looks at the world, and does what `steering` says, until it is over.

What it needs to go on after any end of itself lies in the registry.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from model_registry import rollout_transitions as transitions
from model_registry.errors import SlipwayError
from model_registry.evidence import Evidence
from model_registry.rollout import recollection, steering
from model_registry.rollout.baking import looks_until
from model_registry.rollout.lead import Lead, Overruled
from model_registry.rollout.report import End, Look, RolloutReport, in_short, stuck_hint, verdict_of
from model_registry.rollout.steering import Accept, Bake, Finish, GiveUp, Move, Pause, Shift, Wait, Withdraw
from model_registry.rollout.watching import Watch
from model_registry.state import State, Transition
from model_registry.traffic import Traffic

TIMEOUT = 900.0
STORE_PATIENCE = 300.0
_LONGEST_PATIENCE = 900.0
_SHORTEST_TICK, _LONGEST_TICK = 0.2, 5.0

logger = logging.getLogger("slipway")


@dataclass(frozen=True)
class Patience:
    """For how long what is waited for, in seconds.

    Attributes:
        timeout: Servers and gateways.
        data: Prometheus' data, once the lack of them has paused the rollout; None for a bake, 15 minutes at most.
        store: The registry.
    """

    timeout: float = TIMEOUT
    data: float | None = None
    store: float = STORE_PATIENCE


class ControlLoop:
    """One run's way through a rollout.

    Attributes:
        traffic: The rollout as this run left it last.
    """

    def __init__(
        self,
        lead: Lead,
        watch: Watch,
        model: str,
        *,
        patience: Patience,
        vouched: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Changes nothing yet.

        Args:
            lead: Holds the rollout, by the transition that began it, took it up or aborted it.
            watch: Sees the world.
            model: Whose rollout it is.
            patience: For how long what is waited for.
            vouched: Who says that no gateway sends requests to canary; empty where nobody does.
            clock: Tells seconds that never go back.
            sleep: Waits some seconds.
        """
        assert lead.traffic is not None
        self.traffic = lead.traffic
        self._lead = lead
        self._watch = watch
        self._model = model
        self._patience = patience
        self._vouched = vouched
        self._clock = clock
        self._sleep = sleep
        self._looks: list[Look] = []
        self._evidence: tuple[Evidence, ...] = ()
        self._why = ""
        self._said = ""
        self._unused = False
        self._stuck = ""
        self._entered: tuple[str, int] | None = None
        self._phase_began = 0.0

    def run(self) -> RolloutReport:
        """Goes on until the rollout is over, or somebody has to look.

        Raises:
            ConflictError: If another run took it up.
            StorageError: If the registry is away for too long.
            FormatError: If what lies in it cannot be trusted.
            SlipwayError: If gateways did not take its requests from canary in time.
        """
        taken_up = self._lead.state.last_transition
        assert taken_up is not None and taken_up.transition.traffic is not None
        if taken_up.transition.traffic.before is not None:
            self._recall()
        self._enter(self.traffic)
        try:
            while (outcome := self._go_on()) is None:
                self._sleep(self._tick)
        except Overruled as overruled:
            return self._overruled(overruled)
        return self._report(outcome)

    def _recall(self) -> None:
        try:
            found = recollection.recalled(self._lead.history(recollection.LIMIT))
        except SlipwayError as error:  # an abort is not held up by what only the report needs
            logger.warning("what happened before cannot be told: %s", error.message)
            return
        self._looks = [*found.looks]
        self._evidence, self._why, self._unused = found.evidence, found.why, found.unused

    def _go_on(self) -> End | None:
        """Looks, and does what follows; how it ended if it did."""
        self._lead.check()
        traffic = self._lead.traffic
        assert traffic is not None
        if traffic.phase == "baking":
            return self._bake(traffic)
        seen, now = self._watch.seen(traffic, self._lead.revision)
        waited = self._clock() - self._phase_began
        unused = self._unused or bool(self._vouched)
        move = steering.after_waiting(traffic, seen, waited=waited, timeout=self._patience.timeout, unused=unused)
        return self._do(move, traffic, now)

    def _bake(self, traffic: Traffic) -> End | None:
        looked = self._watch.look(traffic)
        if looked is None:
            return None
        if isinstance(looked, Pause):
            return self._do(looked, traffic)
        opinion = looked.opinion
        self._evidence = opinion.evidence
        verdict = verdict_of(opinion.evidence)
        self._looks.append(Look(looked.time, traffic.weight, traffic.bakes, verdict, opinion.evidence))
        looks = looks_until(traffic.plan, looked.number)
        logger.info(
            "%s:%s  %s %%, look %s of %s: %s",
            *(self._model, traffic.candidate, traffic.weight, looked.number, looks, in_short(opinion.evidence)),
        )
        return self._do(opinion.move, traffic, looked.time, why=opinion.words, evidence=opinion.evidence)

    def _do(
        self, move: Move, traffic: Traffic, now: float = 0.0, *, why: str = "", evidence: tuple[Evidence, ...] = ()
    ) -> End | None:
        """Carries a move out; how the rollout ended if that ended it."""
        match move:
            case Wait():
                self._say(traffic, move.words)
                return None
            case GiveUp():
                self._stuck = (
                    f"{self._model}@{traffic.canary} still keeps {self._model}:{traffic.candidate}, since requests may "
                    f"go there: expected weight 0 in force at every gateway, {move.why}"
                )
                if traffic.outcome == "worse":
                    return "worse"
                raise SlipwayError(self._stuck, hint=stuck_hint(self._model))
            case Bake():
                self._change(transitions.bake(traffic, since=now))
            case Shift():
                self._change(transitions.shift(traffic, move.step, until=now), why, evidence)
            case Accept():
                self._change(transitions.accept(traffic), why, evidence)
            case Finish():
                self._change(transitions.finish(traffic), self._vouched)
                return traffic.outcome
            case Pause():
                self._why = move.why
                transition = transitions.pause(self._lead.state, self._model, move.why, awaits_data=move.silent)
                assert transition is not None
                self._change(transition, move.why, evidence)
                return self._await_data(traffic) if move.silent else "paused"
            case Withdraw():
                self._why = move.why
                self._unused = traffic.phase == "starting"
                self._change(transitions.withdraw(traffic, move.outcome), move.why, evidence)
        return None

    def _change(self, transition: Transition, why: str = "", evidence: tuple[Evidence, ...] = ()) -> None:
        self._lead.change(transition, why=why, evidence=evidence)
        if self._lead.traffic:
            self._enter(self._lead.traffic)

    def _await_data(self, traffic: Traffic) -> End | None:
        """Takes a rollout up that was paused for lack of data once there are some; `paused` if they stay away."""
        patience = self._patience.data
        if patience is None:
            patience = min(traffic.plan.bake, _LONGEST_PATIENCE)
        logger.info("%s:%s  waiting %.0f s for data", self._model, traffic.candidate, patience)
        deadline = self._clock() + patience
        back, since = False, None
        while not back:
            if self._clock() >= deadline:
                return "paused"
            self._sleep(self._tick)
            self._lead.check()
            back, since = self._watch.data_since(traffic, since)
        resume = transitions.resume(self._lead.state, self._model, run=self._lead.origin.run)
        self._change(resume, "there are data again")
        return None

    def _enter(self, traffic: Traffic) -> None:
        """Begins to count anew where it waits for something else by now."""
        if (traffic.phase, traffic.step) != self._entered:
            self._phase_began = self._clock()
        self._entered = traffic.phase, traffic.step
        self._watch.begin()
        self._said = ""
        self.traffic = traffic

    @property
    def _tick(self) -> float:
        return min(_LONGEST_TICK, max(_SHORTEST_TICK, self.traffic.plan.bake / 50))

    def _say(self, traffic: Traffic, words: str) -> None:
        """Tells what is new, and nothing twice."""
        if words and words != self._said:
            self._said = words
            logger.info("%s:%s  %s: %s", self._model, traffic.candidate, traffic.phase, words)

    def _report(self, outcome: End) -> RolloutReport:
        return self._reported(outcome, self._why, "", self._lead.state)

    def _overruled(self, overruled: Overruled) -> RolloutReport:
        return self._reported(overruled.outcome, overruled.why, overruled.who, overruled.state)

    def _reported(self, outcome: End, why: str, by: str, state: State) -> RolloutReport:
        return recollection.report(
            self._model,
            self.traffic,
            state,
            outcome=outcome,
            why=why,
            by=by,
            stuck=self._stuck,
            looks=self._looks,
            evidence=self._evidence,
        )
