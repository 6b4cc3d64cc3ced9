"""Leads a rollout from where it is to its end: reads the state, looks at the world, and does what `steering` says.

All it needs to go on after any end of itself lies in the registry. So it may be killed at any time: the next run takes
the rollout up by counting its epoch on, which fences off this one, should it still be alive.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from model_registry import rollout_transitions as transitions
from model_registry.errors import SlipwayError
from model_registry.evidence import Evidence
from model_registry.registry import Registry
from model_registry.rollout import recollection, steering
from model_registry.rollout.baking import LOOKS
from model_registry.rollout.decision import EXTENSION
from model_registry.rollout.lead import Lead, Overruled
from model_registry.rollout.report import End, Look, RolloutReport, in_short, stuck_hint, verdict_of
from model_registry.rollout.steering import Accept, Bake, Finish, GiveUp, Move, Pause, Shift, Wait, Withdraw
from model_registry.rollout.watching import Observation, Watch
from model_registry.state import Origin, Record, State, Transition
from model_registry.traffic import Plan, Traffic

TIMEOUT = 900.0
STORE_PATIENCE = 300.0
_LONGEST_PATIENCE = 900.0
_GATEWAYS_PATIENCE = 60.0  # a gateway takes a moment to route a new model, and Prometheus to ask it
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


class Driver:
    """Leads one rollout. What it raises leaves the rollout where it is, for `resume` or `abort`.

    Attributes:
        traffic: The rollout as this run left it last; None before it has one.

    Raises:
        ConflictError: If another run took it up, or a rule forbids what was asked for.
        NotFoundError: If there is no such version or rollout.
        StorageError: If the registry is away for too long.
        FormatError: If what lies in it cannot be trusted.
        SlipwayError: If gateways did not take its requests from canary in time.
    """

    def __init__(
        self,
        registry: Registry,
        observation: Observation,
        model: str,
        *,
        origin: Origin,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        told: Callable[[Record], None] = lambda record: None,
    ) -> None:
        """Changes nothing yet.

        Args:
            registry: Where the model is.
            observation: What is seen of it.
            model: Its name.
            origin: Who leads, why, and in which flow run.
            patience: For how long what is waited for.
            clock: Tells seconds that never go back.
            sleep: Waits some seconds.
            told: Learns of each transition that is made.
        """
        self._registry = registry
        self._watch = Watch(observation, model, clock=clock)
        self._model = model
        self._origin = origin
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep
        self._told = told
        self.traffic: Traffic | None = None
        self._lead: Lead
        self._looks: list[Look] = []
        self._evidence: tuple[Evidence, ...] = ()
        self._why = ""
        self._said = ""
        self._unused = False
        self._vouched = ""
        self._stuck = ""
        self._entered: tuple[str, int] | None = None
        self._phase_began = 0.0

    def begin(self, candidate: int, plan: Plan, *, stable: str = "stable", canary: str = "canary") -> RolloutReport:
        """Begins a rollout, and leads it to its end; a flow run that runs again goes on with its own, over or not.

        Args:
            candidate: The version that stable is to name.
            plan: How.
            stable: The label that is to name it.
            canary: The label that names it meanwhile.

        Raises:
            InvalidInputError: If the plan makes no sense; nothing was changed then, nor by:
            StorageError: If Prometheus does not answer.
            SlipwayError: If it knows no gateway of the model, or one that is not ready.
        """
        state = self._registry.state(self._model)
        if self._is_own(state, candidate):
            return self._take_up()
        if state.traffic is None and self._origin.run:
            history = self._registry.history(self._model, recollection.LIMIT)
            if ended := recollection.ended(history, self._origin.run, candidate):
                return recollection.standing(self._model, state, ended)
        self.rehearse(candidate, plan, stable=stable, canary=canary)
        record = self._begin(candidate, plan, stable=stable, canary=canary, dry_run=False)
        return self._run(record)

    def rehearse(self, candidate: int, plan: Plan, *, stable: str = "stable", canary: str = "canary") -> Record:
        """Holds a rollout to every rule that `begin` does, and changes nothing.

        Returns:
            What would be done.

        Raises:
            InvalidInputError: As `begin` does, with the others.
        """
        record = self._begin(candidate, plan, stable=stable, canary=canary, dry_run=True)
        assert record.transition.traffic is not None and record.transition.traffic.after is not None
        self._watch.require(record.transition.traffic.after)
        self._await_gateways()
        return record

    def _await_gateways(self) -> None:
        patience = min(self._patience.timeout, _GATEWAYS_PATIENCE)
        deadline = self._clock() + patience
        while not (seen := self._watch.ready()).reached:
            if self._clock() >= deadline:
                raise SlipwayError(
                    f"no rollout of {self._model} could be seen through: expected 0 % in force at every gateway within "
                    f"{patience:.0f} s, {seen.words}",
                    hint="Prometheus scrapes the job slipway-gateway (docs/monitoring.md); --within tells fleets apart",
                )
            self._sleep(_SHORTEST_TICK)

    def _begin(self, candidate: int, plan: Plan, *, stable: str, canary: str, dry_run: bool) -> Record:
        decide = partial(
            transitions.begin,
            model=self._model,
            candidate=candidate,
            plan=plan,
            stable=stable,
            canary=canary,
            run=self._origin.run,
        )
        record = self._registry.change_traffic(self._model, decide, origin=self._origin, dry_run=dry_run)
        assert record is not None
        return record

    def resume(self) -> RolloutReport:
        """Takes up a rollout where it was left, and leads it to its end; where it is blind, whoever leads it stays.

        Raises:
            InvalidInputError: If scipy is not installed.
            StorageError: If Prometheus does not answer.
        """
        transitions.under_way(self._registry.state(self._model), self._model)
        self._watch.require_sight()
        return self._take_up()

    def _take_up(self) -> RolloutReport:
        decide = partial(transitions.resume, model=self._model, run=self._origin.run)
        record = self._registry.change_traffic(self._model, decide, origin=self._origin, insist=True)
        assert record is not None
        return self._run(record)

    def abort(self, *, unseen: bool = False) -> RolloutReport:
        """Ends a rollout without its candidate, whoever leads it.

        Args:
            unseen: Whether a person vouches that no gateway sends requests to canary: none is waited for then.
        """
        if unseen:
            given = f": {self._origin.why}" if self._origin.why else ""
            self._vouched = f"gateways unseen, {self._origin.who} vouches that none sends requests there{given}"
        decide = partial(transitions.abort, model=self._model)
        record = self._registry.change_traffic(self._model, decide, origin=self._origin, insist=True)
        return self._run(record) if record else self._take_up()

    def _is_own(self, state: State, candidate: int) -> bool:
        run, traffic = self._origin.run, state.traffic
        if run is None or traffic is None or traffic.run is None or traffic.paused:
            return False
        return (traffic.run.id, traffic.candidate) == (run.id, candidate)

    # Leading

    def _run(self, record: Record) -> RolloutReport:
        change = record.transition.traffic
        assert change is not None and change.after is not None
        # As the record left it: what was done since is noticed at the first look.
        state = State(revision=record.revision, traffic=change.after, last_transition=record)
        self._lead = Lead(
            self._registry,
            self._model,
            state,
            origin=self._origin,
            patience=self._patience.store,
            clock=self._clock,
            sleep=self._sleep,
            told=self._told,
        )
        if change.before is not None:
            self._recall()
        self._enter(change.after)
        self._told(record)
        try:
            while (outcome := self._go_on()) is None:
                self._sleep(self._tick)
        except Overruled as overruled:
            return self._overruled(overruled)
        return self._report(outcome)

    def _recall(self) -> None:
        try:
            found = recollection.recalled(self._registry.history(self._model, recollection.LIMIT))
        except SlipwayError as error:  # an abort is not held up by what only the report needs
            logger.warning("what happened before cannot be told: %s", error.message)
            return
        self._looks = [*found.looks]
        self._evidence, self._why, self._unused = found.evidence, found.why, found.unused

    def _go_on(self) -> End | None:
        """Looks, and does what follows; how it ended if it did."""
        lead = self._lead
        lead.check()
        traffic = lead.traffic
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
        looks = LOOKS if looked.number <= LOOKS else EXTENSION * LOOKS
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
                transition = transitions.pause(self._lead.state, self._model, move.why)
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
        self._change(transitions.resume(self._lead.state, self._model, run=self._origin.run), "there are data again")
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
        assert self.traffic is not None
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
        assert self.traffic is not None
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
