"""Thousands of rollouts of made-up versions, judged by the rule that judges real ones.

Requests come at random (Poisson), so that a bucket's count does too. What is simulated is the traffic; every look is
the product's own `judge`, and the walk through steps, looks and extensions is the one its docstring tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from model_registry.rollout.decision import EXTENSION, Rule, judge
from model_registry.rollout.histograms import Histogram
from model_registry.rollout.samples import Requests
from model_registry.serving.gateway.envoy_metrics import BUCKETS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Latency = Callable[[Floats], Floats]
"""Share of the requests that take so many milliseconds or less."""

STEPS = (5, 25, 100)
BAKE = 600.0  # seconds

BOUNDS = (*BUCKETS, math.inf)


def _reach(bound: float) -> float:
    """Below which latency Envoy counts a request under `le=bound`.

    It rounds down to whole milliseconds, keeps two digits, and counts what then is the bound or less.
    """
    step = 10.0 ** max(0, math.floor(math.log10(bound)) - 1)
    return (math.floor(bound / step) + 1) * step


_REACHES = np.array([_reach(bound) for bound in BUCKETS])
_GRID = np.geomspace(0.01, 1e6, 200_001)


def peaks(*parts: tuple[float, float, float]) -> Latency:
    """A mixture of log-normals: (share, median in milliseconds, sigma) of each."""
    return lambda x: sum((share * ndtr(np.log(x / median) / sigma) for share, median, sigma in parts), np.zeros(len(x)))


SHAPES: dict[str, Latency] = {
    "one peak": peaks((1, 20, 0.5)),
    "two peaks": peaks((0.8, 10, 0.3), (0.2, 80, 0.4)),
    "heavy tail": peaks((0.97, 20, 0.4), (0.03, 150, 1.0)),
}


def slower(latency: Latency, times: float) -> Latency:
    """Every request takes so many times as long."""
    return lambda x: latency(x / times)


def slower_tail(latency: Latency, times: float) -> Latency:
    """The slowest two in a hundred take so many times as long, and the three before them go over to it."""
    shares = latency(_GRID)
    mapped = _GRID * (1 + (times - 1) * np.clip((shares - 0.95) / 0.03, 0, 1))
    return lambda x: np.interp(x, mapped, shares)


def with_quantile(change: Callable[[float], Latency], stable: Latency, share: float, ratio: float) -> Latency:
    """Changes a latency by as much as makes a quantile, as histograms show it, so many times that of stable."""
    target = ratio * shown_quantile(stable, share)
    low, high = 1.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if shown_quantile(change(middle), share) < target else (low, middle)
    return change(low)


def shown_quantile(latency: Latency, share: float) -> float:
    """The quantile that a histogram of endless requests shows."""
    counts = np.rint(in_buckets(latency) * 1e12).astype(int)
    histogram = Histogram(BOUNDS, tuple(counts.tolist()))
    return histogram.at(share * histogram.samples)


def in_buckets(latency: Latency) -> Floats:
    """Share of the requests in each bucket."""
    shares = latency(_REACHES)
    return np.maximum(np.diff(np.array([0.0, *shares, 1.0])), 0)


@dataclass(frozen=True)
class Service:
    """What simulated versions do.

    Attributes:
        rate: Requests a second, of both together.
        stable_errors: Share of stable's answers that are errors.
        canary_errors: Likewise.
        stable_latency: How long stable takes.
        canary_latency: Likewise.
        clump: So many requests in a row share their fate.
        outage_chance: In how many of the looks both versions fail more.
        outage_errors: By how much more.
        slower_last_step: So many times as long takes everything in the last step.
    """

    rate: float
    stable_errors: float = 0.001
    canary_errors: float = 0.001
    stable_latency: Latency = SHAPES["one peak"]
    canary_latency: Latency = SHAPES["one peak"]
    clump: int = 1
    outage_chance: float = 0.0
    outage_errors: float = 0.0
    slower_last_step: float = 1.0


@dataclass
class Outcome:
    """How rollouts went.

    Attributes:
        rollouts: How many.
        promoted: Those that passed every step.
        worse: For each that stepped back: minutes since its begin, and the canary's errors by then.
        worse_steps: In which step each of them did, from 0.
        first_bake_passed: Those that passed the first step.
        pass_minutes: How long the first bake of each of these took.
    """

    rollouts: int
    promoted: int = 0
    worse: list[tuple[float, int]] = field(default_factory=list)
    worse_steps: list[int] = field(default_factory=list)
    first_bake_passed: int = 0
    pass_minutes: list[float] = field(default_factory=list)

    @property
    def paused(self) -> int:
        """Those that nobody could tell."""
        return self.rollouts - self.promoted - len(self.worse)

    @property
    def minutes(self) -> float:
        """Median time until a rollout stepped back."""
        return float(np.median([minutes for minutes, _ in self.worse])) if self.worse else math.nan

    @property
    def failed(self) -> float:
        """Median number of the canary's errors by then."""
        return float(np.median([failed for _, failed in self.worse])) if self.worse else math.nan


def roll_out(service: Service, rollouts: int, *, seed: int, rule: Rule | None = None) -> Outcome:
    """Simulates that many rollouts of one pair of versions."""
    rule = rule or Rule()
    return _Simulation(service, rule, np.random.default_rng(seed)).run(rollouts)


@dataclass
class _Side:
    """What one version has answered in a bake, of every rollout at once."""

    totals: Integers
    errors: Integers
    buckets: Integers

    @classmethod
    def idle(cls, rollouts: int) -> _Side:
        return cls(np.zeros(rollouts, int), np.zeros(rollouts, int), np.zeros((rollouts, len(BOUNDS)), int))

    def requests(self, which: int) -> Requests:
        latency = Histogram(BOUNDS, tuple(self.buckets[which].tolist()))
        return Requests(int(self.totals[which]), int(self.errors[which]), latency)


@dataclass
class _Simulation:
    service: Service
    rule: Rule
    random: np.random.Generator

    def run(self, rollouts: int) -> Outcome:
        outcome = Outcome(rollouts)
        minutes = np.zeros(rollouts)
        failed = np.zeros(rollouts, int)
        alive = [*range(rollouts)]
        reference = _Side.idle(rollouts)
        for step, weight in enumerate(STEPS):
            canary, stable = _Side.idle(rollouts), _Side.idle(rollouts)
            baking, passed = alive, []
            for look in range(1, EXTENSION * self.rule.looks + 1):
                before = canary.errors.copy()
                self._serve(canary, stable, weight, last=step == len(STEPS) - 1)
                minutes[baking] += BAKE / self.rule.looks / 60
                failed[baking] += (canary.errors - before)[baking]
                going_on = []
                for which in baking:
                    judgement = judge(
                        canary.requests(which),
                        (stable if weight < 100 else reference).requests(which),
                        self.rule,
                        step_count=len(STEPS),
                        bake_number=1,
                        complete=look >= self.rule.looks,
                    )
                    if judgement.verdict == "worse":
                        outcome.worse.append((float(minutes[which]), int(failed[which])))
                        outcome.worse_steps.append(step)
                    elif judgement.verdict == "not worse":
                        passed.append(which)
                    else:
                        going_on.append(which)
                for which in {*baking} - {*going_on}:  # what the next step is compared with stops here
                    for mine, its in zip(_arrays(reference), _arrays(stable), strict=True):
                        mine[which] = its[which]
                baking = going_on
            alive = passed
            if step == 0:
                outcome.first_bake_passed = len(passed)
                outcome.pass_minutes = minutes[passed].tolist()
        outcome.promoted = len(alive)
        return outcome

    def _serve(self, canary: _Side, stable: _Side, weight: int, *, last: bool) -> None:
        """Adds what both answer until the next look."""
        service = self.service
        requests = service.rate * BAKE / self.rule.looks
        outages = service.outage_errors * (self.random.random(len(canary.totals)) < service.outage_chance)
        for side, share, errors, latency in (
            (canary, weight / 100, service.canary_errors, service.canary_latency),
            (stable, 1 - weight / 100, service.stable_errors, service.stable_latency),
        ):
            seen = slower(latency, service.slower_last_step) if last else latency
            counts = self.random.poisson(requests * share * in_buckets(seen), size=side.buckets.shape)
            totals = counts.sum(axis=1)
            side.buckets += counts
            side.totals += totals
            chance = np.minimum(errors + outages, 1)
            side.errors += np.minimum(service.clump * self.random.binomial(-(-totals // service.clump), chance), totals)


def _arrays(side: _Side) -> tuple[Integers, Integers, Integers]:
    return side.totals, side.errors, side.buckets
