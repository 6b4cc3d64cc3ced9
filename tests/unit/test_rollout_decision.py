from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic_core import to_json
from scipy import stats

from model_registry.errors import InvalidInputError
from model_registry.evidence import Evidence
from model_registry.rollout.bounds import (
    largest_quantile,
    largest_share,
    least_quantile,
    least_share,
    samples_for_a_quantile,
)
from model_registry.rollout.decision import EXTENSION, Judgement, Rule, judge
from model_registry.rollout.histograms import Histogram
from model_registry.rollout.samples import Requests
from tests.support.simulated_rollouts import BOUNDS, Service, in_buckets, peaks, roll_out, shown_quantile

RULE = Rule()
ORDER = {"not worse": 0, "undecided": 1, "worse": 2}
LATENCY = peaks((1, 20, 0.5))
unhurried = settings(deadline=None)


def requests(total: int, errors: int, slower: float = 1) -> Requests:
    """As many requests as expected in each bucket."""
    shares = in_buckets(peaks((1, 20 * slower, 0.5)))
    cumulative = np.rint(total * np.cumsum(shares)).astype(int)
    return Requests(total, errors, Histogram(BOUNDS, tuple(np.diff([0, *cumulative.tolist()]).tolist())))


def look(
    canary: Requests, stable: Requests, *, bake_number: int = 1, complete: bool = True, steps: int = 3
) -> Judgement:
    return judge(canary, stable, RULE, step_count=steps, bake_number=bake_number, complete=complete)


STABLE = requests(15_300, 15)

totals = st.integers(1, 200_000)


@st.composite
def sides(draw: st.DrawFn) -> Requests:
    total = draw(totals)
    return requests(total, draw(st.integers(0, min(total, 300))), draw(st.floats(0.5, 3)))


@unhurried
@given(sides(), sides(), st.integers(0, 1000), st.booleans())
def test_more_errors_never_make_a_canary_better(canary: Requests, stable: Requests, more: int, complete: bool) -> None:
    worse = replace(canary, errors=min(canary.total, canary.errors + more))

    before, after = look(canary, stable, complete=complete), look(worse, stable, complete=complete)

    assert ORDER[before.verdict] <= ORDER[after.verdict]


@unhurried
@given(sides(), sides(), st.integers(0, len(BOUNDS) - 1), st.integers(0, len(BOUNDS) - 1))
def test_slower_requests_never_make_a_canary_better(canary: Requests, stable: Requests, one: int, another: int) -> None:
    fast, slow = sorted((one, another))
    counts = [*canary.latency.counts]
    counts[slow] += counts[fast]
    counts[fast] = 0 if fast != slow else counts[fast]
    worse = replace(canary, latency=Histogram(BOUNDS, tuple(counts)) if fast != slow else canary.latency)

    assert ORDER[look(canary, stable).verdict] <= ORDER[look(worse, stable).verdict]


@unhurried
@given(sides(), sides())
def test_two_sides_are_never_both_worse(one: Requests, another: Requests) -> None:
    for first, second in zip(look(one, another).evidence, look(another, one).evidence, strict=True):
        assert {first.verdict, second.verdict} != {"worse"}


@unhurried
@given(sides(), sides(), st.integers(1, 20), st.integers(1, 20))
def test_another_bake_or_step_never_turns_a_verdict_around(
    canary: Requests, stable: Requests, bake: int, steps: int
) -> None:
    found = {look(canary, stable).verdict, look(canary, stable, bake_number=bake, steps=steps).verdict}

    assert found != {"worse", "not worse"}


@unhurried
@given(sides(), sides())
def test_evidence_tells_what_follows_from_it(canary: Requests, stable: Requests) -> None:
    for each in look(canary, stable).evidence:
        if each.canary_bound is None or each.stable_bound is None:
            assert each.verdict == "undecided"
            continue
        absolute = each.metric == "error_rate"
        allowed = each.stable_bound + each.margin if absolute else each.stable_bound * (1 + each.margin)
        assert each.canary is not None and each.stable is not None
        if each.verdict == "worse":
            assert each.canary >= each.canary_bound > allowed
        else:
            assert each.canary <= each.canary_bound
            assert (each.verdict == "not worse") == (each.canary_bound < allowed)


@unhurried
@given(sides() | st.just(Requests()), sides() | st.just(Requests()), st.booleans())
def test_a_judgement_is_told_and_stored_whatever_it_is(canary: Requests, stable: Requests, complete: bool) -> None:
    judgement = look(canary, stable, complete=complete)

    assert judgement.words().startswith(judgement.verdict)
    assert TypeAdapter(tuple[Evidence, ...]).validate_json(to_json(judgement.evidence)) == judgement.evidence
    assert [each.metric for each in judgement.evidence] == ["error_rate", "p50", "p99"]
    undecided = {each.metric for each in judgement.evidence if each.verdict == "undecided"}
    expected = undecided if complete and judgement.verdict == "undecided" else set()
    assert {shortfall.metric for shortfall in judgement.shortfalls} == expected


def test_an_equal_canary_passes_when_its_time_is_over_and_not_before() -> None:
    canary = requests(3000, 3)

    assert look(canary, STABLE, complete=False).verdict == "undecided"
    assert look(canary, STABLE, complete=True).verdict == "not worse"


def test_a_canary_that_fails_is_worse_before_its_time_is_over() -> None:
    assert look(requests(60, 60), STABLE, complete=False).verdict == "worse"


def test_a_canary_without_requests_is_undecided() -> None:
    judgement = look(Requests(), STABLE)

    assert judgement.verdict == "undecided"
    assert "error rate: the canary had no requests to judge it by" in judgement.words()
    assert "p99: stable had no requests to judge it by" in look(STABLE, Requests()).words()


def test_one_bad_metric_is_enough_to_be_worse_and_all_must_pass() -> None:
    slow = look(requests(3000, 3, slower=2), STABLE)

    assert (slow.verdict, [each.verdict for each in slow.evidence]) == ("worse", ["not worse", "worse", "worse"])


def test_latencies_beyond_the_last_bucket_are_never_called_good() -> None:
    beyond = Requests(5000, 0, Histogram((10, math.inf), (4000, 1000)))

    p99, words = look(beyond, beyond).evidence[2], look(beyond, beyond).words()

    assert (p99.canary, p99.canary_bound, p99.verdict) == (10, None, "undecided")
    assert "p99 10 ms of 5,000 requests against 10 ms of 5,000: so many lie above the last bucket" in words


def test_what_a_worse_canary_is_told_by() -> None:
    words = look(requests(812, 41), STABLE).words()

    assert words == (
        "worse: error rate 5 % of 812 requests against 0.098 % of 15,300: at least 2.6 %, with 1.2 % allowed "
        "(stable has at most 0.23 %, the margin is 1 %)"
    )


def test_what_an_undecided_canary_lacks_is_told() -> None:
    words = look(requests(600, 1), STABLE).words()

    assert words.startswith(
        "undecided: error rate 0.17 % of 600 requests against 0.098 % of 15,300: at most 1.5 %, with 1 % allowed "
        "(stable has at least 0.038 %, the margin is 1 %); roughly 570 more requests to the canary would tell; p99 "
    )
    assert words.endswith("of 15,300: too few to bound it; roughly 340 more requests to the canary would tell")


@pytest.mark.parametrize("total", [300, 600, 1000])
def test_with_the_requests_that_it_lacked_an_equal_canary_passes(total: int) -> None:
    judgement = look(requests(total, round(total / 1000)), STABLE)
    more = max((shortfall.more or 0) for shortfall in judgement.shortfalls)
    grown = 1.1 * (total + more) / total

    again = look(
        requests(round(total * grown), math.floor(total * grown / 1000)),
        requests(round(15_300 * grown), round(15 * grown)),
    )

    assert judgement.verdict == "undecided"
    assert again.verdict == "not worse"


def test_a_canary_at_its_margin_lacks_what_no_requests_bring() -> None:
    judgement = look(requests(100_000, 100, slower=1.25), STABLE)

    assert [(short.metric, short.more) for short in judgement.shortfalls] == [("p50", None)]
    assert "too near the margin for more requests to settle it" in judgement.words()


@pytest.mark.parametrize("early", [0, 5])
def test_chances_of_a_whole_rollout_sum_to_what_the_rule_says(early: int) -> None:
    rule = replace(RULE, early_looks=early)
    steps, bakes = 3, range(1, 100_000)
    of_bakes = sum(rule.alpha_of_a_bound(step_count=steps, bake_number=bake) for bake in bakes)
    assert of_bakes * 3 * 2 * steps * (EXTENSION * rule.looks + early) == pytest.approx(rule.alpha, rel=1e-4)

    of_bakes = sum(rule.beta_of_a_bound(bake_number=bake) for bake in bakes)
    looks_that_may_pass = EXTENSION * rule.looks - rule.looks + 1
    assert of_bakes * 2 * looks_that_may_pass == pytest.approx(rule.beta, rel=1e-4)


@pytest.mark.parametrize("level", [0.05, 1e-3, 1e-5])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.5])
@pytest.mark.parametrize("samples", [5, 60, 1000])
def test_bounds_of_a_share_miss_it_no_more_often_than_their_level(samples: int, share: float, level: float) -> None:
    hits = np.arange(samples + 1)
    chances = stats.binom.pmf(hits, samples, share)
    least = np.array([least_share(hit, samples, level) for hit in hits.tolist()])
    largest = np.array([largest_share(hit, samples, level) for hit in hits.tolist()])

    assert chances[least > share].sum() <= level
    assert chances[largest < share].sum() <= level
    # Not by being idle: one level up, they do miss it.
    if samples * share > 20:
        assert chances[least > share].sum() > level / 10


@pytest.mark.parametrize("hits", [0, 1, 7, 99, 100])
def test_bounds_of_a_share_are_those_of_clopper_and_pearson(hits: int) -> None:
    interval = stats.binomtest(hits, 100).proportion_ci(0.95, method="exact")

    assert least_share(hits, 100, 0.025) == pytest.approx(interval.low)
    assert largest_share(hits, 100, 0.025) == pytest.approx(interval.high)


def one_by_one(samples: int) -> Histogram:
    """A bucket for each sample: that of rank 7 is above 6 and 7 at most."""
    return Histogram((*map(float, range(1, samples + 1)), math.inf), (*[1] * samples, 0))


@pytest.mark.parametrize("level", [0.05, 1e-3, 1e-5])
@pytest.mark.parametrize("share", [0.5, 0.99])
@pytest.mark.parametrize("samples", [5, 600, 1200, 20_000])
def test_bounds_of_a_quantile_are_the_tightest_that_sorted_samples_give(
    samples: int, share: float, level: float
) -> None:
    latency = one_by_one(samples)
    least, largest = least_quantile(latency, share, level), largest_quantile(latency, share, level)

    # The next sample lies above the quantile if no more than `least` lie below.
    assert stats.binom.cdf(least, samples, share) <= level or least == 0
    assert stats.binom.cdf(least + 1, samples, share) > level
    if math.isinf(largest):
        assert stats.binom.sf(samples - 1, samples, share) > level
    else:
        assert stats.binom.sf(largest - 1, samples, share) <= level < stats.binom.sf(largest - 2, samples, share)
    assert math.isfinite(largest) == (samples >= samples_for_a_quantile(share, level))


# A quantile just below, on and above the bound of a bucket, and in the middle of one.
@pytest.mark.parametrize("median", [19.99, 20, 20.01, 22])
@pytest.mark.parametrize(("share", "samples"), [(0.5, 30), (0.5, 500), (0.99, 1000)])
def test_interpolated_bounds_miss_the_shown_quantile_no_more_often_than_their_level(
    share: float, samples: int, median: float
) -> None:
    level, rounds = 0.05, 4000
    latency = peaks((1, median, 0.5))
    truth = shown_quantile(latency, share)
    counts = np.random.default_rng(0).multinomial(samples, in_buckets(latency), size=rounds)
    histograms = [Histogram(BOUNDS, tuple(row)) for row in counts.tolist()]

    too_high = sum(least_quantile(histogram, share, level) > truth for histogram in histograms)
    too_low = sum(largest_quantile(histogram, share, level) < truth for histogram in histograms)

    slack = 3 * math.sqrt(level / rounds)
    assert 0 < too_high / rounds <= level + slack
    assert 0 < too_low / rounds <= level + slack


def test_ten_times_the_requests_have_the_bounds_that_they_are_supposed_to_have() -> None:
    few, many = requests(500, 5), requests(5000, 50)

    supposed = largest_quantile(few.latency, 0.5, 1e-3, grown=10)
    assert supposed == pytest.approx(largest_quantile(many.latency, 0.5, 1e-3), rel=0.01)
    supposed = least_quantile(few.latency, 0.5, 1e-3, grown=10)
    assert supposed == pytest.approx(least_quantile(many.latency, 0.5, 1e-3), rel=0.01)


def test_a_canary_at_its_margin_is_called_worse_no_more_often_than_a_loose_rule_says() -> None:
    """Without margins an equal canary is at them: the hardest case there is."""
    rule = Rule(error_rate_margin=0, p50_margin=0, p99_margin=0, alpha=0.45, looks=1)

    outcome = roll_out(Service(100), 1000, seed=5, rule=rule)

    assert 0 < len(outcome.worse) <= 0.45 * 1000


@pytest.mark.parametrize(
    "wrong",
    [
        {"error_rate_margin": -0.1},
        {"p50_margin": math.nan},
        {"p99_margin": math.inf},
        {"alpha": 0},
        {"beta": 0.5},
        {"beta": math.nan},
        {"looks": 0},
        {"early_looks": -1},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong)).replace("looks", "look")):
        Rule(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [{"step_count": 0, "bake_number": 1}, {"step_count": 1, "bake_number": 0}])
def test_steps_and_bakes_count_from_one(numbers: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match="count from 1"):
        judge(STABLE, STABLE, RULE, complete=True, **numbers)


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)

    with pytest.raises(InvalidInputError) as caught:
        look(STABLE, STABLE)

    assert caught.value.hint == "pip install 'slipway[rollout]'"
