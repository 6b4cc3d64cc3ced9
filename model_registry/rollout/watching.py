"""Seeing what a rollout waits for, and looking at a bake when a look is due."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from model_registry.errors import FormatError, InvalidInputError, StorageError
from model_registry.rollout import bounds
from model_registry.rollout.baking import (
    Opinion,
    Sight,
    after_look,
    look_number,
    reference,
    until_the_next_look,
    window_of,
)
from model_registry.rollout.observation import CheckResult, Reached, Window
from model_registry.rollout.silence import Silence
from model_registry.rollout.steering import Pause
from model_registry.traffic import Traffic

_NO_ANSWER = (StorageError, FormatError, InvalidInputError)
_POLL = 60.0  # seconds after which Prometheus is asked whether there are samples, though no look may be due


class Observation(Protocol):
    """What is seen of one model's world: model_registry.rollout.observation.Observer."""

    def now(self) -> float:
        """Unix seconds by Prometheus' clock."""

    def weights_in_force(self, weight: int, revision: int) -> Reached:
        """Whether every gateway shares requests so."""

    def served(self, label: str, version: int, revision: int) -> Reached:
        """Whether every server of a label answers with a version."""

    def window(self, label: str, version: int, start: float, end: float) -> Window:
        """What a version answered in a while."""

    def check(self, promql: str, values: Mapping[str, str]) -> CheckResult:
        """What an operator's own check says."""


@dataclass(frozen=True)
class Looked:
    """A look that was due.

    Attributes:
        number: Which of the bake, from 1.
        time: When, by Prometheus' clock.
        opinion: What follows.
    """

    number: int
    time: float
    opinion: Opinion


class Watch:
    """Watches one rollout."""

    def __init__(self, observation: Observation, model: str, *, clock: Callable[[], float]) -> None:
        """Asks nothing yet.

        Args:
            observation: Who is asked.
            model: Whose rollout it is.
            clock: Tells seconds that never go back.
        """
        self._observation = observation
        self._model = model
        self._clock = clock
        self._silence = Silence(0.0)
        self._look_at = 0.0
        self._number = 0

    def require(self, traffic: Traffic) -> None:
        """Fails where nothing could be decided, before a rollout begins.

        Raises:
            InvalidInputError: If a check is no PromQL, or scipy is not installed.
            StorageError: If Prometheus does not answer.
            FormatError: If something else answers.
        """
        self.require_sight()
        for promql in traffic.plan.checks:
            self._check(promql, traffic, f"{max(1, round(traffic.plan.bake))}s")

    def require_sight(self) -> None:
        """Fails where nothing could be decided, before whoever leads a rollout is fenced off.

        Raises:
            InvalidInputError: If scipy is not installed.
            StorageError: If Prometheus does not answer.
            FormatError: If something else answers.
        """
        bounds.largest_share(0, 1, 0.05)
        self._observation.now()

    def ready(self) -> Reached:
        """Whether every gateway tells what it has in force: without, a rollout could neither go on nor end.

        Raises:
            StorageError: As `require` does, with the others.
        """
        return self._observation.weights_in_force(0, 0)

    def begin(self) -> None:
        """Forgets what was seen: something else is watched from now on."""
        self._silence = Silence(0.0)
        self._look_at = self._clock()
        self._number = 0

    def seen(self, traffic: Traffic, revision: int) -> tuple[Reached, float]:
        """How far gateways or servers are, and when that was, by Prometheus' clock; 0 where it cannot be asked.

        Args:
            traffic: In any phase but baking.
            revision: Of the state that it is in.
        """
        try:
            if traffic.phase in ("shifting", "leaving"):
                seen = self._observation.weights_in_force(traffic.weight, revision)
            else:
                label = traffic.canary if traffic.phase == "starting" else traffic.stable
                seen = self._observation.served(label, traffic.candidate, revision)
            return seen, self._observation.now()
        except _NO_ANSWER as error:
            return Reached(reached=False, failed=False, words=f"Prometheus cannot be asked: {error.message}"), 0.0

    def look(self, traffic: Traffic) -> Looked | Pause | None:
        """Looks at a bake; None where no look is due.

        Args:
            traffic: Baking.
        """
        if self._clock() < self._look_at:
            return None
        sight, number = None, 0
        try:
            sight = self._sight(traffic)
            number = look_number(traffic, sight)
            if number > self._number:
                sight = replace(sight, checks=self._checks(traffic, sight.time))
            self._silence = self._silence.heard(traffic, sight, self._clock())
        except _NO_ANSWER as error:
            sight, self._silence = None, self._silence.failed(error.message, self._clock())
        if pause := self._silence.move(traffic.plan, self._clock()):
            return pause
        if sight is None:
            return None
        self._look_at = self._clock() + min(_POLL, until_the_next_look(traffic, sight))
        if number <= self._number:
            return None
        self._number = number
        return Looked(number, sight.time, after_look(traffic, sight))

    def data_since(self, traffic: Traffic, since: float | None) -> tuple[bool, float | None]:
        """Whether there are samples of a bake again.

        Args:
            traffic: What was baking.
            since: Unix seconds by Prometheus' clock; None where it has not answered yet.

        Returns:
            Whether there are samples of that time and later; and the time to ask about next.
        """
        try:
            now = self._observation.now()
            since = now if since is None else since
            sides = [(traffic.canary, traffic.candidate), (traffic.stable, traffic.baseline)]
            asked = sides[:1] if traffic.weight == 100 else sides
            return now > since and all(self._observation.window(*side, since, now).covered > 0 for side in asked), since
        except _NO_ANSWER:
            return False, since

    def _sight(self, traffic: Traffic) -> Sight:
        assert traffic.since is not None
        now = self._observation.now()
        canary = self._observation.window(traffic.canary, traffic.candidate, traffic.since, now)
        return Sight(now, canary, self._observation.window(traffic.stable, traffic.baseline, *reference(traffic, now)))

    def _checks(self, traffic: Traffic, now: float) -> tuple[CheckResult, ...]:
        window = window_of(traffic, now)
        return tuple(self._checked(promql, traffic, window) for promql in traffic.plan.checks)

    def _checked(self, promql: str, traffic: Traffic, window: str) -> CheckResult:
        """One that has no answer is undecided: the metrics are judged all the same."""
        try:
            return self._check(promql, traffic, window)
        except _NO_ANSWER as error:
            return CheckResult(None, error.message, None)

    def _check(self, promql: str, traffic: Traffic, window: str) -> CheckResult:
        versions = {"version": str(traffic.candidate), "baseline": str(traffic.baseline)}
        return self._observation.check(promql, {"model": self._model, **versions, "window": window})
