"""What follows from a look at a bake: on, back, paused, or another look later. Pure.

No step is passed without data: it takes the full time of a bake with samples, and a verdict of `not worse`.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_registry.evidence import Evidence, Verdict
from model_registry.rollout.decision import EXTENSION, Rule, judge
from model_registry.rollout.observation import CheckResult, Window
from model_registry.rollout.steering import Accept, Move, Pause, Shift, Wait, Withdraw
from model_registry.traffic import Plan, Traffic

LOOKS = Rule.looks
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Sight:
    """What one look at a bake saw.

    Attributes:
        time: When, by Prometheus' clock.
        canary: What the candidate answered since the bake began.
        stable: What the baseline answered meanwhile; at weight 100 during the step before.
        checks: What became of each check of the plan, in its order.
    """

    time: float
    canary: Window
    stable: Window
    checks: tuple[CheckResult, ...] = ()


@dataclass(frozen=True)
class Opinion:
    """What follows from a look.

    Attributes:
        move: What is to be done.
        evidence: Of the three metrics, and of every check.
        words: For a person.
    """

    move: Move
    evidence: tuple[Evidence, ...]
    words: str


def after_look(traffic: Traffic, sight: Sight) -> Opinion:
    """What follows from a look at a bake.

    Args:
        traffic: Baking.
        sight: What was seen.
    """
    plan = traffic.plan
    good = good_seconds(traffic, sight)
    complete = good >= plan.bake - _ROUNDING
    judgement = judge(
        sight.canary.requests,
        sight.stable.requests,
        _rule(plan),
        step_count=len(plan.steps),
        bake_number=max(1, traffic.bakes),
        complete=complete,
    )
    checks = tuple(
        _of_a_check(promql, result, sight, complete=complete)
        for promql, result in zip(plan.checks, sight.checks, strict=True)
    )
    evidence = (*judgement.evidence, *checks)
    words = "; ".join([judgement.words(), *_said(plan, sight)])
    verdicts = {each.verdict for each in evidence}
    move: Move
    if "worse" in verdicts:
        move = Withdraw("worse", words)
    elif complete and verdicts == {"not worse"}:
        move = Accept() if traffic.step + 1 == len(plan.steps) else Shift(traffic.step + 1)
    elif _elapsed(traffic, sight.time) >= EXTENSION * plan.bake:
        move = Pause(f"not enough samples after {_elapsed(traffic, sight.time):.0f} s: {_short_of(plan, good)}{words}")
    else:
        move = Wait(seconds=until_the_next_look(traffic, sight))
    return Opinion(move, evidence, words)


def look_number(traffic: Traffic, sight: Sight) -> int:
    """Which look of the bake is due: as many as its good time has tenths of the bake, twice as many in the end.

    Each is judged once, since the chances of a wrong verdict are shared among so many looks.
    """
    if _elapsed(traffic, sight.time) >= EXTENSION * traffic.plan.bake:
        return EXTENSION * LOOKS
    return int(good_seconds(traffic, sight) * LOOKS / traffic.plan.bake + _ROUNDING)


def until_the_next_look(traffic: Traffic, sight: Sight) -> float:
    """Seconds before which no further look can be due."""
    due = (look_number(traffic, sight) + 1) * traffic.plan.bake / LOOKS
    end = EXTENSION * traffic.plan.bake
    return max(0.0, min(due - good_seconds(traffic, sight), end - _elapsed(traffic, sight.time)))


def good_seconds(traffic: Traffic, sight: Sight) -> float:
    """Of how many seconds there are samples by which canary can be judged."""
    sides = [sight.canary] if traffic.weight == 100 else [sight.canary, sight.stable]
    return min(_elapsed(traffic, sight.time), *(side.covered - side.left_out for side in sides))


def reference(traffic: Traffic, now: float) -> tuple[float, float]:
    """From when to when stable's requests are what the bake is held against."""
    assert traffic.since is not None
    if traffic.weight < 100:
        return traffic.since, now
    return traffic.reference or (traffic.since, now)


def window_of(traffic: Traffic, now: float) -> str:
    """How long the bake has lasted, as PromQL writes durations; for a check's $window."""
    return f"{max(1, round(_elapsed(traffic, now)))}s"


def _elapsed(traffic: Traffic, now: float) -> float:
    assert traffic.since is not None
    return now - traffic.since


def _rule(plan: Plan) -> Rule:
    margins = plan.margins
    return Rule(error_rate_margin=margins.error_rate, p50_margin=margins.p50, p99_margin=margins.p99, looks=LOOKS)


def _of_a_check(promql: str, result: CheckResult, sight: Sight, *, complete: bool) -> Evidence:
    verdict: Verdict = "worse" if result.passed is False else "not worse" if result.passed and complete else "undecided"
    return Evidence(
        metric=promql,
        canary=result.value,
        stable=None,
        canary_bound=None,
        stable_bound=None,
        margin=0.0,
        canary_samples=sight.canary.requests.total,
        stable_samples=sight.stable.requests.total,
        verdict=verdict,
    )


def _said(plan: Plan, sight: Sight) -> list[str]:
    return [
        f"check {promql}: {result.words}"
        for promql, result in zip(plan.checks, sight.checks, strict=True)
        if not result.passed
    ]


def _short_of(plan: Plan, good: float) -> str:
    if good >= plan.bake - _ROUNDING:
        return ""
    return f"expected {plan.bake:.0f} s with samples and no model being loaded, found {good:.0f} s; "
