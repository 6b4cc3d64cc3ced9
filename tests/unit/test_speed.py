"""What is made of the times of two ways to answer. Nothing here waits or measures."""

from __future__ import annotations

import pytest

from tasks.model_process import speed
from tasks.model_process.speed import Speed

# One round was disturbed; the medians are 6 and 2 ms.
MEASURED = Speed((0.006, 0.005, 0.006, 0.9, 0.007), (0.002, 0.003, 0.002, 0.002, 0.001))


def test_the_ratio_of_the_medians_is_recorded_where_the_spec_asks_for_none() -> None:
    check = speed.judge("speed-up/serving_default/8", "tensorrt-fp16-sm80", MEASURED, None)

    assert (check.check, check.variant) == ("speed-up/serving_default/8", "tensorrt-fp16-sm80")
    assert (check.measured, check.threshold, check.passed) == (3.0, "recorded", True)
    assert check.detail == "native 6 ms, converted 2 ms, medians of 5 rounds"


@pytest.mark.parametrize(("at_least", "passes"), [(2.9, True), (3.0, True), (3.1, False)])
def test_the_ratio_is_a_gate_where_the_spec_asks_for_one(at_least: float, passes: bool) -> None:
    check = speed.judge("speed-up/serving_default/8", "tensorrt-fp16-sm80", MEASURED, at_least)

    assert (check.measured, check.threshold, check.passed) == (3.0, at_least, passes)


def test_a_slower_conversion_is_told_as_slower() -> None:
    slower = Speed(MEASURED.converted, MEASURED.native)

    assert speed.judge("speed-up/x/1", "v", slower, None).measured == pytest.approx(0.333)
    assert not speed.judge("speed-up/x/1", "v", slower, 1.0).passed


def test_both_ways_are_asked_in_turn_after_a_warm_up() -> None:
    asked: list[str] = []
    found = speed.alternate(lambda: asked.append("n"), lambda: asked.append("c"), rounds=5)

    assert (len(found.native), len(found.converted)) == (5, 5)
    assert min(*found.native, *found.converted) >= 0
    assert asked.count("n") == asked.count("c")
    turns = [name for name, before in zip(asked, ["", *asked], strict=False) if name != before]
    assert turns == ["n", "c"] * (len(turns) // 2)
    assert len(turns) == 2 * 7, "a warm-up, a call to choose how many make a round, five rounds"


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 50), (0.0001, 50), (0.01, 10), (0.1, 1), (60.0, 1)])
def test_a_round_has_as_many_calls_as_fill_it(seconds: float, calls: int) -> None:
    assert speed._calls(seconds) == calls


def test_there_are_at_least_five_rounds() -> None:
    assert speed.ROUNDS >= 5
