"""What a rollout does next: every phase with everything that can be seen, and no step without data."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.rollout.baking import (
    LOOKS,
    Sight,
    after_look,
    look_number,
    looks_until,
    reference,
    schedule,
    until_the_next_look,
    window_of,
)
from model_registry.rollout.histograms import Histogram
from model_registry.rollout.observation import CheckResult, Reached, Window
from model_registry.rollout.samples import Requests
from model_registry.rollout.silence import Silence
from model_registry.rollout.steering import (
    Accept,
    Bake,
    Finish,
    GiveUp,
    Move,
    Pause,
    Shift,
    Wait,
    Withdraw,
    after_waiting,
)
from model_registry.traffic import Phase, Plan, Traffic

NOW = 1_800_000_000.0
PLAN = Plan(steps=(5, 25, 100), bake=60.0)
TRAFFIC = Traffic(2, "stable", "canary", 1, 2, None, PLAN)
THERE, ON_THE_WAY = Reached(True, False, "all have it"), Reached(False, False, "server-1 loads it")
GAVE_UP = Reached(False, True, "server-1 gave it up")
BOUNDS = (5.0, 10.0, 20.0, 50.0, 100.0, math.inf)


def in_phase(phase: Phase, step: int = 0) -> Traffic:
    idle = phase in ("starting", "leaving")
    traffic = replace(TRAFFIC, phase=phase, step=step, weight=0 if idle else PLAN.steps[step])
    if phase == "baking":
        traffic = replace(traffic, since=NOW, bakes=1)
    if phase in ("promoting", "leaving"):
        traffic = replace(traffic, outcome="promoted")
    assert traffic.contradiction() == ""
    return traffic


@pytest.mark.parametrize(
    ("phase", "seen", "waited", "move"),
    [
        ("starting", THERE, 10, Shift(0)),
        ("starting", ON_THE_WAY, 10, Wait("server-1 loads it")),
        ("starting", GAVE_UP, 10, Withdraw("worse", "server-1 gave it up")),
        ("starting", GAVE_UP, 1000, Withdraw("worse", "server-1 gave it up")),
        ("starting", ON_THE_WAY, 900, Pause("after 900 s server-1 loads it")),
        ("shifting", THERE, 10, Bake()),
        ("shifting", THERE, 1000, Bake()),
        ("shifting", ON_THE_WAY, 10, Wait("server-1 loads it")),
        ("shifting", GAVE_UP, 10, Wait("server-1 gave it up")),
        ("shifting", GAVE_UP, 900, Pause("after 900 s server-1 gave it up")),
        ("promoting", THERE, 10, Withdraw("promoted", "stable serves it: all have it")),
        ("promoting", ON_THE_WAY, 10, Wait("server-1 loads it")),
        ("promoting", GAVE_UP, 10, Pause("server-1 gave it up")),
        ("promoting", ON_THE_WAY, 900, Pause("after 900 s server-1 loads it")),
        ("leaving", THERE, 10, Finish()),
        ("leaving", ON_THE_WAY, 10, Wait("server-1 loads it")),
        ("leaving", GAVE_UP, 899, Wait("server-1 gave it up")),
        ("leaving", ON_THE_WAY, 900, GiveUp("after 900 s server-1 loads it")),
    ],
)
def test_what_is_waited_for_decides(phase: Phase, seen: Reached, waited: float, move: Move) -> None:
    assert after_waiting(in_phase(phase), seen, waited=waited, timeout=900) == move


def test_a_canary_that_never_got_requests_is_left_at_once() -> None:
    assert after_waiting(in_phase("leaving"), ON_THE_WAY, waited=0, timeout=900, unused=True) == Finish()


# Bakes


def window(
    requests: int = 3000, *, errors: int = 0, times: int = 1, covered: float = 60, left_out: float = 0
) -> Window:
    """Requests of which half take 5 to 10 ms, or so many buckets more."""
    counts = [0] * len(BOUNDS)
    counts[times] = requests // 2
    counts[times + 1] = requests - requests // 2
    return Window(Requests(requests, errors, Histogram(BOUNDS, tuple(counts))), covered, left_out)


def sight(seconds: float = 60, *, canary: Window | None = None, stable: Window | None = None, **more: object) -> Sight:
    covered = min(seconds, 60 if seconds <= 60 else seconds)
    return Sight(
        NOW + seconds,
        canary or window(covered=covered),
        stable or window(60_000, covered=covered),
        **more,  # type: ignore[arg-type]
    )


def test_a_step_is_passed_after_its_full_time() -> None:
    for step, move in ((0, Shift(1)), (1, Shift(2)), (2, Accept())):
        opinion = after_look(in_phase("baking", step), sight())

        assert opinion.move == move
        assert {each.verdict for each in opinion.evidence} == {"not worse"}
        assert opinion.words.startswith("not worse: error rate")


def test_a_plan_that_ends_below_all_requests_is_accepted_there() -> None:
    traffic = replace(in_phase("baking"), plan=replace(PLAN, steps=(5,)))

    assert after_look(traffic, sight()).move == Accept()


def test_nothing_passes_before_the_full_time() -> None:
    early = window(covered=54), window(60_000, covered=54)

    opinion = after_look(in_phase("baking"), sight(54, canary=early[0], stable=early[1]))

    assert opinion.move == Wait(seconds=6)


@pytest.mark.parametrize(
    ("canary", "stable"),
    [
        (window(covered=59), window(60_000)),
        (window(), window(60_000, covered=59)),
        (window(left_out=1), window(60_000)),
        (window(), window(60_000, left_out=1)),
    ],
    ids=["canary's samples", "stable's samples", "canary was loading", "stable was loading"],
)
def test_time_without_samples_is_made_up_for(canary: Window, stable: Window) -> None:
    move = after_look(in_phase("baking"), sight(60, canary=canary, stable=stable)).move

    assert move == Wait(seconds=1)


def test_at_all_requests_only_the_time_of_canary_counts() -> None:
    move = after_look(in_phase("baking", 2), sight(60, stable=window(60_000, covered=10))).move

    assert move == Accept()


def test_what_is_worse_goes_back_at_any_look() -> None:
    for seconds in (6, 60, 120):
        bad = sight(seconds, canary=window(errors=300, covered=seconds))

        move = after_look(in_phase("baking"), bad).move

        assert isinstance(move, Withdraw) and move.outcome == "worse"
        assert move.why.startswith("worse: error rate 10 % of 3,000 requests against 0 %")


def test_what_is_slower_goes_back() -> None:
    move = after_look(in_phase("baking"), sight(canary=window(times=2))).move

    assert isinstance(move, Withdraw) and "p50" in move.why


def test_what_is_undecided_goes_on_to_twice_its_time_and_is_paused_with_the_numbers() -> None:
    few = window(40, covered=119.9)
    assert isinstance(after_look(in_phase("baking"), sight(119.9, canary=few)).move, Wait)

    move = after_look(in_phase("baking"), sight(120, canary=window(40, covered=120))).move

    assert isinstance(move, Pause) and not move.silent
    assert move.why.startswith("not enough samples after 120 s: undecided: error rate 0 % of 40 requests")


def test_a_bake_without_time_to_judge_by_is_paused_with_how_much_there_was() -> None:
    move = after_look(in_phase("baking"), sight(120, canary=window(covered=120, left_out=100))).move

    assert isinstance(move, Pause)
    assert "expected 60 s with samples and no model being loaded, found 20 s" in move.why


@pytest.mark.parametrize(
    ("result", "move"),
    [
        (CheckResult(True, "1", 1.0), Shift(1)),
        (CheckResult(None, "no sample", None), Wait(seconds=6)),
    ],
)
def test_a_check_must_pass_like_any_metric(result: CheckResult, move: Move) -> None:
    traffic = replace(in_phase("baking"), plan=replace(PLAN, checks=("up",)))

    assert after_look(traffic, sight(checks=(result,))).move == move


def test_a_check_that_fails_is_evidence() -> None:
    traffic = replace(in_phase("baking"), plan=replace(PLAN, checks=("up",)))

    opinion = after_look(traffic, sight(6, checks=(CheckResult(False, "it is 0", 0.0),)))

    assert isinstance(opinion.move, Withdraw) and "check up: it is 0" in opinion.move.why
    assert (opinion.evidence[-1].metric, opinion.evidence[-1].canary, opinion.evidence[-1].verdict) == (
        "up",
        0,
        "worse",
    )


def test_looks_are_counted_by_the_time_that_can_be_judged() -> None:
    traffic = in_phase("baking")
    for covered, elapsed, number, wait in (
        (0, 5.9, 0, 6),
        (5.9, 5.9, 0, 0.1),
        (6, 6, 1, 6),
        (6, 30, 1, 6),
        (59, 61, 9, 1),
        (60, 62, 10, 6),
        (118, 119, 19, 1),
        (0, 120, 20, 0),
    ):
        seen = sight(elapsed, canary=window(covered=covered), stable=window(60_000, covered=elapsed))
        assert look_number(traffic, seen) == number
        assert until_the_next_look(traffic, seen) == pytest.approx(wait)


def test_a_long_bake_has_looks_before_its_first_tenth() -> None:
    tenths = [60.0 * number for number in range(1, 21)]
    assert schedule(600) == tuple(pytest.approx(tenth) for tenth in tenths)
    assert schedule(24 * 3600)[:6] == (60, 180, 540, 1620, 4860, 8640)
    assert len(schedule(24 * 3600)) == 5 + 2 * LOOKS
    assert (looks_until(replace(PLAN, bake=86400), 15), looks_until(replace(PLAN, bake=86400), 16)) == (15, 25)


@given(bake=st.floats(0.1, 30 * 86400))
def test_looks_come_one_after_another_and_none_while_a_version_is_cold(bake: float) -> None:
    looks = schedule(bake)

    assert list(looks) == sorted(set(looks))
    assert looks[0] == pytest.approx(min(60.0, bake / LOOKS))
    assert looks[-1] == pytest.approx(2 * bake) and len(looks) <= 2 * LOOKS + 8
    assert bake in [pytest.approx(look) for look in looks]


def test_each_look_of_a_long_bake_has_a_number_of_its_own() -> None:
    traffic = replace(in_phase("baking"), plan=replace(PLAN, bake=7200.0))
    for covered, number, wait in ((59, 0, 1), (60, 1, 120), (179, 1, 1), (180, 2, 360), (720, 4, 720), (14400, 23, 0)):
        seen = sight(covered, canary=window(covered=covered), stable=window(60_000, covered=covered))
        assert look_number(traffic, seen) == number
        assert until_the_next_look(traffic, seen) == pytest.approx(wait)


def test_stable_is_held_against_the_same_time_or_the_step_before() -> None:
    assert reference(in_phase("baking"), NOW + 30) == (NOW, NOW + 30)
    last = replace(in_phase("baking", 2), reference=(NOW - 100, NOW - 40))
    assert reference(last, NOW + 30) == (NOW - 100, NOW - 40)


def test_a_checks_window_is_a_duration() -> None:
    assert [window_of(in_phase("baking"), NOW + seconds) for seconds in (0, 0.4, 90)] == ["1s", "1s", "90s"]


# Silence


def heard(silence: Silence, now: float, covered: float = 0, step: int = 0) -> Silence:
    seen = sight(now, canary=window(covered=covered), stable=window(covered=now))
    return silence.heard(in_phase("baking", step), seen, now)


def test_samples_that_come_are_no_silence() -> None:
    silence = Silence(0)
    for now in range(6, 600, 6):
        silence = heard(silence, now, covered=now)
        assert silence.move(PLAN, now) is None


def test_three_looks_in_vain_pause_it() -> None:
    silence = heard(Silence(0), 10, covered=8)
    for now, paused in ((16, False), (22, False), (33.9, False), (34, True)):
        silence = heard(silence, now, covered=8)
        assert (silence.move(PLAN, now) is not None) == paused

    move = silence.move(PLAN, 34)
    assert move and move.silent
    assert move.why == "no data for 18 s: Prometheus has no new samples of the requests to canary"


def test_a_silence_is_neither_called_too_early_nor_too_late() -> None:
    for bake, least in ((1, 5), (60, 18), (600, 180), (86_400, 180)):
        plan = replace(PLAN, bake=float(bake))
        silence = Silence(0, 0, looks=10, words="x")
        assert silence.move(plan, least - 0.1) is None
        assert silence.move(plan, least) is not None
        assert replace(silence, looks=2).move(plan, 10_000) is None


def test_what_prometheus_said_last_is_told() -> None:
    silence = Silence(0)
    for now in (1000, 1006, 1060):
        silence = silence.failed("connection refused", now)

    move = silence.move(PLAN, 1060)
    assert move and move.why == "no data for 60 s: connection refused"


# Whatever is seen


REACHED = st.builds(Reached, reached=st.booleans(), failed=st.booleans(), words=st.just("words"))
SECONDS = st.floats(0, 300)


@st.composite
def requests(draw: st.DrawFn) -> Requests:
    total = draw(st.sampled_from([0, 0, 1, 10, 300, 3000, 50_000]))
    share = draw(st.sampled_from([0, 0, 0, 0.001, 0.02, 0.5, 1]))
    slot = draw(st.integers(0, len(BOUNDS) - 1))
    counts = [0] * len(BOUNDS)
    counts[slot] = draw(st.sampled_from([total, total, 0]))
    return Requests(total, int(total * share), Histogram(BOUNDS, tuple(counts)))


WINDOWS = st.builds(Window, requests=requests(), covered=SECONDS, left_out=st.just(0.0) | SECONDS)
CHECKS = st.builds(CheckResult, passed=st.sampled_from([True, False, None]), words=st.just("words"), value=st.none())


@given(
    step=st.integers(0, 2),
    seconds=SECONDS,
    canary=WINDOWS,
    stable=WINDOWS,
    checks=st.lists(CHECKS, max_size=2),
    bakes=st.integers(1, 3),
)
def test_no_step_is_passed_without_data_and_a_verdict(
    step: int, seconds: float, canary: Window, stable: Window, checks: list[CheckResult], bakes: int
) -> None:
    plan = replace(PLAN, checks=("up",) * len(checks))
    traffic = replace(in_phase("baking", step), plan=plan, bakes=bakes)
    seen = Sight(NOW + seconds, canary, stable, tuple(checks))

    opinion = after_look(traffic, seen)

    verdicts = {each.verdict for each in opinion.evidence}
    if isinstance(opinion.move, Shift | Accept):
        assert verdicts == {"not worse"}
        assert canary.requests.total and stable.requests.total
        assert canary.requests.latency.samples and stable.requests.latency.samples
        assert seconds >= PLAN.bake - 1e-3
        assert canary.covered - canary.left_out >= PLAN.bake - 1e-3
        assert all(check.passed for check in checks)
        assert opinion.move == (Accept() if step == 2 else Shift(step + 1))
    elif isinstance(opinion.move, Withdraw):
        assert "worse" in verdicts and opinion.move.outcome == "worse"
    else:
        assert "worse" not in verdicts
        assert isinstance(opinion.move, Pause) == (seconds >= 2 * PLAN.bake)
    assert until_the_next_look(traffic, seen) >= 0
    assert look_number(traffic, seen) <= len(schedule(plan.bake))


@given(
    phase=st.sampled_from(["starting", "shifting", "promoting", "leaving"]),
    step=st.integers(0, 2),
    seen=REACHED,
    waited=SECONDS,
)
def test_no_wait_ends_well_without_what_was_waited_for(phase: Phase, step: int, seen: Reached, waited: float) -> None:
    move = after_waiting(in_phase(phase, step), seen, waited=waited, timeout=100)

    assert not isinstance(move, Accept)
    if isinstance(move, Shift | Bake | Finish) or move == Withdraw("promoted", f"stable serves it: {seen.words}"):
        assert seen.reached
    if isinstance(move, Shift):
        assert (phase, move.step) == ("starting", 0)
