"""What follows from a look at a bake: on, back, paused, or another look later. Pure.

No step is passed without data: it takes the full time of a bake with samples, and a verdict of `not worse`.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import count, takewhile

from model_registry.evidence import Evidence, Verdict
from model_registry.rollout.decision import EXTENSION, Rule, judge
from model_registry.rollout.observation import CheckResult, Window
from model_registry.rollout.steering import Accept, Move, Pause, Shift, Wait, Withdraw
from model_registry.traffic import Plan, Traffic

LOOKS = Rule.looks
_FIRST_LOOK, _APART = 60.0, 3  # seconds; how many times as late the next one comes
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


def schedule(bake: float) -> tuple[float, ...]:
    """The good seconds after which there is a look: ten in the time of a bake, and ten in its extension.

    Where a tenth of the bake is long there are looks before, after 1, 3, 9, 27, ... minutes: a canary that does
    nothing but fail is not to do so for hours. None is earlier, since what has just been loaded may be slow at first.

    Args:
        bake: Its time in seconds.
    """
    tenth = bake / LOOKS
    early = takewhile(lambda seconds: seconds < tenth, (_FIRST_LOOK * _APART**n for n in count()))
    return (*early, *(tenth * number for number in range(1, EXTENSION * LOOKS + 1)))


def look_number(traffic: Traffic, sight: Sight) -> int:
    """Which look of the bake is due, from 1; the last one when the time of its extension is over.

    Each is judged once, since the chances of a wrong verdict are shared among so many looks.
    """
    looks = schedule(traffic.plan.bake)
    if _elapsed(traffic, sight.time) >= EXTENSION * traffic.plan.bake:
        return len(looks)
    return bisect_right(looks, good_seconds(traffic, sight) + _ROUNDING)


def looks_until(plan: Plan, number: int) -> int:
    """How many looks there are in the time of a bake; with its extension, for a look that is in there."""
    whole = len(schedule(plan.bake))
    in_time = whole - (EXTENSION - 1) * LOOKS
    return in_time if number <= in_time else whole


def until_the_next_look(traffic: Traffic, sight: Sight) -> float:
    """Seconds before which no further look can be due."""
    end = EXTENSION * traffic.plan.bake
    due = next(iter(schedule(traffic.plan.bake)[look_number(traffic, sight) :]), end)
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
    return Rule(
        error_rate_margin=margins.error_rate,
        p50_margin=margins.p50,
        p99_margin=margins.p99,
        looks=LOOKS,
        early_looks=len(schedule(plan.bake)) - EXTENSION * LOOKS,
    )


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
