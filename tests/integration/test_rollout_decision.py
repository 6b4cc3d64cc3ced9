"""How often the rule is wrong, and how soon it is right: whole rollouts, simulated by the thousand."""

from __future__ import annotations

import pytest

from model_registry.rollout.decision import Rule
from tests.support.figures import Figures
from tests.support.simulated_rollouts import (
    SHAPES,
    Latency,
    Outcome,
    Service,
    roll_out,
    slower,
    slower_tail,
    with_quantile,
)

pytestmark = pytest.mark.figures

RULE = Rule()
RATES = (20, 100, 1000)


def _rollouts(suite: int, soak: int) -> pytest.MarkDecorator:
    """How many, in the suite and in the soak."""
    long = [pytest.mark.soak, pytest.mark.timeout(900)]
    return pytest.mark.parametrize("count", [suite, pytest.param(soak, marks=long)])


def _note(figures: Figures, table: str, outcome: Outcome, **cells: object) -> None:
    count = outcome.rollouts
    figures(
        table,
        **cells,
        rollouts=f"{count:,}",
        promoted=f"{outcome.promoted / count:.2%}",
        paused=f"{outcome.paused / count:.2%}",
        **{
            "stepped back": f"{len(outcome.worse) / count:.2%}",
            "minutes until then": f"{outcome.minutes:.0f}" if outcome.worse else "",
            "requests failed by then": f"{outcome.failed:,.0f}" if outcome.worse else "",
        },
    )


@_rollouts(suite=40, soak=2000)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_equal_canary_is_hardly_ever_called_worse(shape: str, rate: int, count: int, figures: Figures) -> None:
    latency = SHAPES[shape]

    outcome = roll_out(Service(rate, stable_latency=latency, canary_latency=latency), count, seed=1)

    # Far below alpha, which is for a canary that is at its margin; an equal one is far from it.
    assert len(outcome.worse) <= RULE.alpha * count / 10
    if rate >= 1000:
        assert outcome.promoted == count
    _note(figures, "a canary that equals stable", outcome, latency=shape, **{"requests/s": str(rate)})


def _at_its_margin(metric: str, latency: Latency, rate: int) -> Service:
    if metric == "error_rate":
        errors = 0.001
        return Service(rate, errors, errors + RULE.error_rate_margin, latency, latency)
    if metric == "p50":
        canary = with_quantile(lambda times: slower(latency, times), latency, 0.50, 1 + RULE.p50_margin)
    else:
        canary = with_quantile(lambda times: slower_tail(latency, times), latency, 0.99, 1 + RULE.p99_margin)
    return Service(rate, stable_latency=latency, canary_latency=canary)


@_rollouts(suite=20, soak=500)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("metric", ["error_rate", "p50", "p99"])
def test_a_canary_at_its_margin_passes_no_more_often_than_beta_and_is_worse_no_more_often_than_alpha(
    metric: str, rate: int, count: int, figures: Figures
) -> None:
    outcome = roll_out(_at_its_margin(metric, SHAPES["one peak"], rate), count, seed=2)

    assert outcome.first_bake_passed <= RULE.beta * count
    assert len(outcome.worse) <= RULE.alpha * count
    passed = {"passed the first step": f"{outcome.first_bake_passed / count:.2%}"}
    _note(figures, "a canary exactly at a margin", outcome, metric=metric, **{"requests/s": str(rate)}, **passed)


def _bad(fault: str, latency: Latency, rate: int) -> Service:
    errors, canary = 0.001, latency
    if fault.endswith("errors"):
        errors = {"2 % errors": 0.02, "5 % errors": 0.05, "only errors": 1.0}[fault]
    else:
        canary = {"twice as slow": slower, "p99 twice as slow": slower_tail}[fault](latency, 2)
    return Service(rate, canary_errors=errors, stable_latency=latency, canary_latency=canary)


_FAULTS = [
    ("only errors", "one peak"),
    ("5 % errors", "one peak"),
    ("2 % errors", "one peak"),
    *[(fault, shape) for fault in ("twice as slow", "p99 twice as slow") for shape in SHAPES],
]


@_rollouts(suite=20, soak=500)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("fault", "shape"), _FAULTS)
def test_a_bad_canary_is_not_promoted(fault: str, shape: str, rate: int, count: int, figures: Figures) -> None:
    outcome = roll_out(_bad(fault, SHAPES[shape], rate), count, seed=3)

    assert outcome.promoted <= RULE.beta * count
    if rate >= 1000:
        assert len(outcome.worse) >= (1 - RULE.beta) * count
    _note(figures, "a bad canary", outcome, fault=fault, latency=shape, **{"requests/s": str(rate)})


_LATENCY = SHAPES["one peak"]
_BEYOND = {
    "errors come ten in a row": Service(100, clump=10),
    "errors come a hundred in a row": Service(100, clump=100),
    "both fail 5 % more in every tenth minute": Service(100, outage_chance=0.1, outage_errors=0.05),
    "both fail 30 % more in every tenth minute": Service(100, outage_chance=0.1, outage_errors=0.3),
    "everything is 10 % slower in the last step": Service(100, slower_last_step=1.1),
    "everything is 30 % slower in the last step": Service(100, slower_last_step=1.3),
}


@_rollouts(suite=20, soak=500)
@pytest.mark.parametrize("trouble", _BEYOND)
def test_what_the_rule_does_not_assume_is_told(trouble: str, count: int, figures: Figures) -> None:
    outcome = roll_out(_BEYOND[trouble], count, seed=4)

    before_the_last = sum(step < 2 for step in outcome.worse_steps)
    if "last step" in trouble or "both" in trouble:
        # Both sides of a split have the same bad minutes; only the last step is compared with another time.
        assert before_the_last <= RULE.alpha * count
    told = {"stepped back before the last step": f"{before_the_last / count:.2%}"}
    _note(figures, "an equal canary where requests are not alike", outcome, trouble=trouble, **told)
