"""Leads a rollout from where it is to its end: begins one, takes one up, or ends one without its candidate.

All it needs to go on after any end of itself lies in the registry. So it may be killed at any time: the next run takes
the rollout up by counting its epoch on, which fences off this one, should it still be alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from model_registry import rollout_transitions as transitions
from model_registry.errors import SlipwayError
from model_registry.registry import Registry
from model_registry.rollout import recollection
from model_registry.rollout.control_loop import ControlLoop, Patience
from model_registry.rollout.lead import Lead
from model_registry.rollout.report import RolloutReport
from model_registry.rollout.watching import Observation, Watch
from model_registry.state import Origin, Record, State
from model_registry.traffic import Plan, Traffic

_GATEWAYS_PATIENCE = 60.0  # a gateway takes a moment to route a new model, and Prometheus to ask it
_POLL = 0.2  # seconds between two looks at them


class Driver:
    """Leads one rollout. What it raises leaves the rollout where it is, for `resume` or `abort`.

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
        self._loop: ControlLoop | None = None

    @property
    def traffic(self) -> Traffic | None:
        """The rollout as this run left it last; None before it has one."""
        return self._loop.traffic if self._loop else None

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
            self._sleep(_POLL)

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

    def _take_up(self, vouched: str = "") -> RolloutReport:
        decide = partial(transitions.resume, model=self._model, run=self._origin.run)
        record = self._registry.change_traffic(self._model, decide, origin=self._origin, insist=True)
        assert record is not None
        return self._run(record, vouched)

    def abort(self, *, unseen: bool = False) -> RolloutReport:
        """Ends a rollout without its candidate, whoever leads it.

        Args:
            unseen: Whether a person vouches that no gateway sends requests to canary: none is waited for then.
        """
        vouched = ""
        if unseen:
            given = f": {self._origin.why}" if self._origin.why else ""
            vouched = f"gateways unseen, {self._origin.who} vouches that none sends requests there{given}"
        decide = partial(transitions.abort, model=self._model)
        record = self._registry.change_traffic(self._model, decide, origin=self._origin, insist=True)
        return self._run(record, vouched) if record else self._take_up(vouched)

    def _is_own(self, state: State, candidate: int) -> bool:
        run, traffic = self._origin.run, state.traffic
        if run is None or traffic is None or traffic.run is None:
            return False
        if traffic.paused and not traffic.awaits_data:  # for somebody to look at
            return False
        return (traffic.run.id, traffic.candidate) == (run.id, candidate)

    def _run(self, record: Record, vouched: str = "") -> RolloutReport:
        change = record.transition.traffic
        assert change is not None
        # As the record left it: what was done since is noticed at the first look.
        state = State(revision=record.revision, traffic=change.after, last_transition=record)
        lead = Lead(
            self._registry,
            self._model,
            state,
            origin=self._origin,
            patience=self._patience.store,
            clock=self._clock,
            sleep=self._sleep,
            told=self._told,
        )
        self._loop = ControlLoop(
            lead,
            self._watch,
            self._model,
            patience=self._patience,
            vouched=vouched,
            clock=self._clock,
            sleep=self._sleep,
        )
        self._told(record)
        return self._loop.run()
