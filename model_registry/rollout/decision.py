"""Whether a canary is worse than stable, not worse, or nobody can tell yet. Pure.

Two tests of non-inferiority with one margin, and room between them for "undecided":

    worse        the lower bound of the canary lies above the upper bound of stable plus the margin, in any metric
    not worse    the upper bound of the canary lies below the lower bound of stable plus the margin, in every metric

A margin, because with enough requests any two versions differ: the question is whether by more than somebody would
mind. See S. Wellek, "Testing Statistical Hypotheses of Equivalence and Noninferiority", 2nd edition (2010), chapter 1.

What repeated looks cost is paid by Bonferroni's inequality, which holds however much the looks depend on each other:

    worse        `alpha` of a whole rollout is shared among its steps, looks, metrics and the two sides' bounds. A bake
                 that is repeated takes its part from a series that sums to 1: 1/2, 1/6, 1/12, ...
    not worse    `beta` of a bake is shared among its looks and the two bounds, by the same series. Not among metrics,
                 since all must pass, and the one that is beyond its margin has to slip through whatever the others do
                 (R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24, 1982).
                 Nor among steps, for the same reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model_registry.errors import InvalidInputError
from model_registry.evidence import Evidence, Verdict
from model_registry.rollout import wording
from model_registry.rollout.metrics import METRICS, Metric
from model_registry.rollout.samples import Requests

# A bake that is undecided when its time is over goes on for as long again.
EXTENSION = 2

# A metric that would take more than so many times the requests lies at its margin, for all a bake can tell.
_MOST_GROWN = 100


@dataclass(frozen=True)
class Rule:
    """How much worse a canary may be, and how sure a verdict has to be.

    Attributes:
        error_rate_margin: Share of all requests by which its errors may be more: 0.01 lets 1.1 % pass beside 0.1 %.
        p50_margin: Share by which its median latency may be longer.
        p99_margin: Share by which its 99th percentile may be longer.
        alpha: Chance that a rollout calls a canary worse that is within every margin.
        beta: Chance that a rollout promotes a canary that is beyond a margin.
        looks: Looks at the metrics in the time of a bake; as many again while it is extended.
        early_looks: Looks before the first of these.

    Raises:
        InvalidInputError: If a margin is negative, a chance is not between 0 and 0.5, or a count is too low.
    """

    error_rate_margin: float = 0.01
    p50_margin: float = 0.25
    p99_margin: float = 0.5
    alpha: float = 0.05
    beta: float = 0.05
    looks: int = 10
    early_looks: int = 0

    def __post_init__(self) -> None:
        for name in ("error_rate_margin", "p50_margin", "p99_margin"):
            if not 0 <= (margin := getattr(self, name)) < math.inf:
                raise InvalidInputError(f"{name} is a share, 0 or more: found {margin}")
        for name in ("alpha", "beta"):
            if not 0 < (chance := getattr(self, name)) < 0.5:
                raise InvalidInputError(f"{name} is a chance between 0 and 0.5: found {chance}")
        if self.looks < 1:
            raise InvalidInputError(f"a bake takes one look at least: found looks={self.looks}")
        if self.early_looks < 0:
            raise InvalidInputError(f"there are no fewer looks than none: found early_looks={self.early_looks}")

    def alpha_of_a_bound(self, *, step_count: int, bake_number: int) -> float:
        """Chance that one bound is wrong in favour of "worse"."""
        looks = (EXTENSION * self.looks + self.early_looks) * step_count
        return self.alpha * _part(bake_number) / (looks * len(METRICS) * 2)

    def beta_of_a_bound(self, *, bake_number: int) -> float:
        """Chance that one bound is wrong in favour of "not worse", which only looks from the full time on may say."""
        looks = (EXTENSION - 1) * self.looks + 1
        return self.beta * _part(bake_number) / (looks * 2)


@dataclass(frozen=True)
class Shortfall:
    """What a metric lacks for "not worse".

    Attributes:
        metric: As in its Evidence.
        more: Roughly how many more requests the canary needs if both sides go on as they are; None if a hundred times
            as many would not settle it, or a side has had none.
    """

    metric: str
    more: int | None


@dataclass(frozen=True)
class Judgement:
    """What one look says.

    Attributes:
        verdict: `worse` ends the rollout, `not worse` its step.
        evidence: Each metric: error_rate, p50, p99.
        shortfalls: What each undecided metric lacks; empty before the bake's full time and with any other verdict.
    """

    verdict: Verdict
    evidence: tuple[Evidence, ...]
    shortfalls: tuple[Shortfall, ...] = ()

    def words(self) -> str:
        """The verdict and what it rests on, for a person who was woken by it."""
        if self.verdict == "worse":
            worse = [wording.compared(each) for each in self.evidence if each.verdict == "worse"]
            return f"worse: {'; '.join(worse)}"
        if self.verdict == "not worse":
            return f"not worse: {'; '.join(wording.compared(each) for each in self.evidence)}"
        if not self.shortfalls:
            return (
                f"undecided, nothing against it so far: {'; '.join(wording.measured(each) for each in self.evidence)}"
            )
        more = {shortfall.metric: shortfall.more for shortfall in self.shortfalls}
        lacking = [wording.lacking(each, more[each.metric]) for each in self.evidence if each.metric in more]
        return f"undecided: {'; '.join(lacking)}"


def judge(
    canary: Requests, stable: Requests, rule: Rule, *, step_count: int, bake_number: int, complete: bool
) -> Judgement:
    """Judges a canary by all requests of its bake so far.

    Args:
        canary: Its requests since the bake began.
        stable: Those of stable in the same time; of the step before where it has none.
        rule: Margins, chances and looks.
        step_count: Steps of the whole rollout.
        bake_number: Which bake of this step it is, from 1: a step that was paused and resumed bakes again.
        complete: Whether the bake had its full time. Before that, only "worse" is said: what goes wrong may need time,
            and a bake is promised some.

    Raises:
        InvalidInputError: If the numbers of steps and bakes do not begin at 1, or scipy is not installed.
    """
    if step_count < 1 or bake_number < 1:
        raise InvalidInputError(
            f"steps and bakes count from 1: found step_count={step_count}, bake_number={bake_number}"
        )
    alpha = rule.alpha_of_a_bound(step_count=step_count, bake_number=bake_number)
    beta = rule.beta_of_a_bound(bake_number=bake_number)
    margins = (rule.error_rate_margin, rule.p50_margin, rule.p99_margin)
    tests = [_Test(metric, margin, alpha, beta) for metric, margin in zip(METRICS, margins, strict=True)]
    evidence = tuple(test.evidence(canary, stable, complete) for test in tests)
    verdicts = {each.verdict for each in evidence}
    if "worse" in verdicts:
        return Judgement("worse", evidence)
    if verdicts == {"not worse"}:
        return Judgement("not worse", evidence)
    if not complete:
        return Judgement("undecided", evidence)
    shortfalls = [
        Shortfall(each.metric, test.more_requests(canary, stable))
        for test, each in zip(tests, evidence, strict=True)
        if each.verdict == "undecided"
    ]
    return Judgement("undecided", evidence, tuple(shortfalls))


@dataclass(frozen=True)
class _Test:
    """One metric, its margin, and the chances that each of its bounds may be wrong."""

    metric: Metric
    margin: float
    alpha: float
    beta: float

    def evidence(self, canary: Requests, stable: Requests, complete: bool) -> Evidence:
        """What the metric says."""
        metric = self.metric
        verdict: Verdict = "undecided"
        bounds = math.inf, math.inf
        if metric.samples(canary) and metric.samples(stable):
            least, most = metric.least(canary, self.alpha), metric.largest(stable, self.alpha)
            if least > metric.allowed(most, self.margin):
                verdict, bounds = "worse", (least, most)
            else:
                passed, bounds = self._not_worse(canary, stable)
                verdict = "not worse" if passed and complete else "undecided"
        return Evidence(
            metric=metric.name,
            canary=metric.measured(canary) if metric.samples(canary) else None,
            stable=metric.measured(stable) if metric.samples(stable) else None,
            canary_bound=_finite(bounds[0]),
            stable_bound=_finite(bounds[1]),
            margin=self.margin,
            canary_samples=metric.samples(canary),
            stable_samples=metric.samples(stable),
            verdict=verdict,
        )

    def more_requests(self, canary: Requests, stable: Requests) -> int | None:
        """How many more the canary needs for "not worse", with two digits; None if no number would do."""
        samples = self.metric.samples(canary)
        if not samples or not self.metric.samples(stable):
            return None
        grown = 1.0
        while (grown := grown * 1.25) <= _MOST_GROWN:
            if self._not_worse(canary, stable, grown)[0]:
                more = samples * (grown - 1)
                return max(1, int(round(more, 1 - math.floor(math.log10(more)))))
        return None

    def _not_worse(self, canary: Requests, stable: Requests, grown: float = 1) -> tuple[bool, tuple[float, float]]:
        """Whether it passes, and by which bounds, with so many times the requests."""
        most, least = self.metric.largest(canary, self.beta, grown), self.metric.least(stable, self.beta, grown)
        return most < self.metric.allowed(least, self.margin), (most, least)


def _part(bake_number: int) -> float:
    """What a bake of a step may spend of its chance: 1/2, 1/6, 1/12, ... which sum to 1."""
    return 1 / (bake_number * (bake_number + 1))


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
