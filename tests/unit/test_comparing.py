"""What is made of a candidate's answers beside the trained model's."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from model_registry.servable import Check
from tasks.model_process import comparing
from tasks.model_process.messages import Tolerance

STRICT = Tolerance(atol=1e-5, rtol=1e-4)


def _parity(found: Any, expected: Any, tolerance: Tolerance = STRICT) -> Any:
    return comparing.parity("serving_default/y", "native", [np.asarray(found)], [np.asarray(expected)], tolerance)


def test_it_needs_no_tensorflow() -> None:
    script = "import sys; import tasks.model_process.comparing; sys.exit('tensorflow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_equal_answers_pass_with_no_error() -> None:
    check = _parity([[1.0, -2.0]], [[1.0, -2.0]])

    assert (check.check, check.variant, check.passed) == ("parity/serving_default/y", "native", True)
    assert check.measured == {"max_absolute_error": 0.0, "max_relative_error": 0.0}
    assert check.threshold == {"atol": 1e-5, "rtol": 1e-4}


def test_the_largest_errors_of_all_cases_are_told() -> None:
    found = [np.array([1.0, 100.5]), np.array([2.0, 0.3])]
    expected = [np.array([1.0, 100.0]), np.array([2.0, 0.2])]

    check = comparing.parity("s/y", "native", found, expected, STRICT)

    assert not check.passed
    assert check.measured == pytest.approx({"max_absolute_error": 0.5, "max_relative_error": 0.5})
    assert check.detail == "2 of 4 values outside"


def test_the_relative_error_of_a_tiny_value_is_measured_against_the_absolute_tolerance() -> None:
    check = _parity([1e-7], [1e-12])

    assert check.passed
    assert check.measured["max_relative_error"] < 0.02


@pytest.mark.parametrize(("error", "passed"), [(1.09e-4, True), (1.11e-4, False)])
def test_the_tolerance_is_that_of_numpy_allclose(error: float, passed: bool) -> None:
    assert _parity([1.0 + error], [1.0]).passed is passed
    assert np.allclose(1.0 + error, 1.0, rtol=STRICT.rtol, atol=STRICT.atol) is passed


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_errors_are_measured_in_double_precision(dtype: str) -> None:
    found, expected = np.array([60_000.0], dtype), np.array([-60_000.0], dtype)

    assert _parity(found, expected).measured["max_absolute_error"] == pytest.approx(120_000, rel=1e-3)


def test_bfloat16_counts_as_numbers() -> None:
    import ml_dtypes

    found, expected = np.array([1.0], ml_dtypes.bfloat16), np.array([1.0078125], ml_dtypes.bfloat16)

    assert _parity(found, expected, Tolerance(5e-2, 5e-2)).measured["max_absolute_error"] == 0.0078125
    assert comparing.finite("s/y", "native", [found]).passed


@pytest.mark.parametrize(
    ("found", "expected"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, np.inf), (np.inf, -np.inf)]
)
def test_nan_and_infinity_are_outside_any_tolerance(found: float, expected: float) -> None:
    check = _parity([found, 1.0], [expected, 1.0], Tolerance(1e9, 1e9))

    assert not check.passed
    assert check.detail == "1 of 2 values outside"


@pytest.mark.parametrize("found", [np.nan, np.inf])
def test_an_error_without_bound_survives_json(found: float) -> None:
    check = _parity([found], [1.0])

    assert TypeAdapter(Check).validate_json(TypeAdapter(Check).dump_json(check)) == check
    assert check.measured["max_absolute_error"] > 1e300
    assert comparing.quality("mean_absolute_error", np.array([found]), np.array([1.0])) > 1e300


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_the_model_itself_answers_is_no_difference(value: float) -> None:
    assert _parity([value, 1.0], [value, 1.0]).passed


CONSTANT_PASSES = "a constant would pass; give samples, or lower atol"


def test_answers_that_the_tolerance_cannot_tell_apart_pass_with_a_remark() -> None:
    expected = np.random.default_rng(0).uniform(0.0005, 0.0017, (8, 1000))

    check = _parity(np.zeros_like(expected), expected, Tolerance(1e-2, 1e-2))

    assert check.passed
    assert check.detail.endswith(CONSTANT_PASSES)


@pytest.mark.parametrize(
    ("rows", "vacuous"),
    [
        ([[0.0], [1.9]], True),
        ([[0.0], [2.1]], False),
        ([[0.0], [0.9], [1.8], [2.7], [1.8], [0.9]], False),
        ([[0.5, 0.0], [0.6, 3.0]], False),
        ([[0.5], [0.5]], False),
        ([[0.5]], False),
        ([0.5, 0.6], True),
        ([[0.5, np.inf], [0.6, np.inf]], False),
        ([[0.5, np.nan], [0.6, np.nan]], False),
    ],
    ids=[
        "the middle would pass",
        "no value would pass",
        "each is like the next alone",
        "one place tells them apart",
        "the same row twice",
        "one row",
        "a value a row",
        "infinite",
        "nan",
    ],
)
def test_the_remark_is_made_where_one_value_is_within_the_tolerance_of_all_rows(rows: Any, vacuous: bool) -> None:
    assert _parity(rows, rows, Tolerance(1.0, 0.0)).detail.endswith(CONSTANT_PASSES) is vacuous
    # As it is if each row comes in a request of its own.
    assert comparing.tells_nothing([np.array([row]) for row in rows], Tolerance(1.0, 0.0)) is vacuous


def test_rows_of_different_lengths_are_told_apart_by_those_of_one_length() -> None:
    close, apart = np.array([[0.1, 0.2], [0.2, 0.1]]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 9.0]])

    assert comparing.tells_nothing([close, apart[:1]], Tolerance(1.0, 0.0))
    assert not comparing.tells_nothing([close, apart], Tolerance(1.0, 0.0))
    assert not comparing.tells_nothing([close[:1], apart[:1]], Tolerance(1.0, 0.0))


def test_the_relative_tolerance_counts_for_the_remark_as_it_does_for_parity() -> None:
    rows = np.array([[100.0], [101.0]])

    assert comparing.tells_nothing([rows], Tolerance(0.0, 1e-2))
    assert not comparing.tells_nothing([rows], Tolerance(0.0, 1e-3))


def test_a_parity_that_fails_tells_of_the_values_alone() -> None:
    check = _parity([[0.1], [9.0]], [[0.1], [0.2]], Tolerance(1.0, 0.0))

    assert check.detail == "1 of 2 values outside"


def test_another_shape_fails_with_both_shapes() -> None:
    check = _parity(np.zeros((2, 3)), np.zeros((2, 4)))

    assert (check.passed, check.measured, check.threshold) == (False, "float64 [2, 3]", "float64 [2, 4]")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (np.array([b"boat", b"dock"], object), np.array([b"boat", b"fog"], object)),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True, False]), np.array([True, True])),
    ],
)
def test_strings_integers_and_booleans_must_be_equal(found: Any, expected: Any) -> None:
    assert _parity(expected, expected).passed
    check = _parity(found, expected)

    assert (check.passed, check.measured, check.threshold) == (False, 1, 0)


def test_answers_without_any_value_prove_nothing() -> None:
    check = _parity(np.zeros((0, 3)), np.zeros((0, 3)))

    assert not check.passed
    assert "no value to compare" in check.detail


def test_another_dtype_fails_with_both_dtypes() -> None:
    check = _parity(np.array([1, 2], np.int32), np.array([1, 2], np.float32))

    assert (check.passed, check.measured, check.threshold) == (False, "int32 [2]", "float32 [2]")


def test_accuracy_of_one_probability_refuses_labels_of_several_classes() -> None:
    with pytest.raises(ValueError, match="accuracy"):
        comparing.quality("accuracy", np.array([[0.9], [0.2], [0.8]]), np.array([2, 0, 7]))


def test_values_that_are_not_finite_are_counted() -> None:
    check = comparing.finite("s/y", "native", [np.array([1.0, np.nan]), np.array([[np.inf], [-np.inf]])])

    assert check is not None
    assert (check.passed, check.measured, check.threshold) == (False, 3, 0)


def test_strings_cannot_be_infinite() -> None:
    assert comparing.finite("s/y", "native", [np.array([b"nan"], object)]) is None


SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.25, 0.5, 0.25]])


def _top1(found: Any, at_least: float = 0.99, min_samples: int = 1, tolerance: Tolerance = STRICT) -> Any:
    return comparing.top1("s/y", "native", np.asarray(found), SCORES, tolerance, at_least, min_samples)


def test_agreement_is_the_share_of_rows_with_the_same_class_first() -> None:
    found = SCORES.copy()
    found[2] = [0.5, 0.1, 0.4]

    check = _top1(found)

    assert (check.check, check.measured, check.threshold, check.passed) == ("top1/s/y", 0.75, 0.99, False)
    assert _top1(found, at_least=0.75).passed


def test_either_of_two_classes_closer_than_the_tolerance_counts() -> None:
    found = SCORES.copy()
    found[2] = [0.41, 0.29, 0.3]

    assert not _top1(found).passed
    assert _top1(found, tolerance=Tolerance(0.0, 0.3)).passed


def test_the_absolute_tolerance_makes_no_class_the_best() -> None:
    """Or of 1000 classes each would count as the best, and zeros agree with any model."""
    expected = np.full((4, 1000), 0.00099)
    expected[np.arange(4), [5, 17, 400, 999]] = 0.0017
    expected /= expected.sum(axis=1, keepdims=True)

    check = comparing.top1("s/y", "native", np.zeros_like(expected), expected, Tolerance(1e-2, 1e-2), 0.99, 1)

    assert check is not None
    assert (check.measured, check.passed) == (0.0, False)


def test_few_rows_are_measured_but_not_judged() -> None:
    check = _top1(SCORES[:, ::-1], min_samples=100)

    assert check.passed
    assert check.measured < 0.99
    assert "4 rows, the gate asks for 100" in check.detail


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.5, 0.5]),
        np.array([[1.0]]),
        np.array([[0.5, 0.6]]),
        np.array([[-0.5, 1.5]]),
        np.array([[1, 0]]),
        np.zeros((0, 2)),
        np.array([[np.nan, 1.0]]),
    ],
    ids=["one row", "one class", "adds up to more", "negative", "integers", "no rows", "nan"],
)
def test_what_adds_up_to_something_else_is_no_class_scores(array: Any) -> None:
    assert not comparing.is_class_scores(array)
    assert comparing.top1("s/y", "native", array, array, STRICT, 0.99, 1) is None


def test_half_precision_scores_need_not_add_up_exactly() -> None:
    assert comparing.is_class_scores(np.full((2, 10), 0.1, np.float16))


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], [[0], [1], [2], [0]], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]])
def test_accuracy_takes_class_ids_and_one_hot_rows(labels: Any) -> None:
    assert comparing.quality("accuracy", SCORES, np.array(labels)) == 0.75


def test_accuracy_of_a_probability_is_that_of_its_half() -> None:
    assert comparing.quality("accuracy", np.array([[0.9], [0.4], [0.6]]), np.array([1, 0, 0])) == pytest.approx(2 / 3)


def test_top5_accuracy_looks_at_five_classes() -> None:
    scores = np.arange(12.0).reshape(2, 6)

    assert comparing.quality("top5_accuracy", scores, np.array([1, 0])) == 0.5


def test_errors_of_values() -> None:
    predictions, labels = np.array([[1.0], [4.0]]), np.array([2.0, 2.0])

    assert comparing.quality("mean_absolute_error", predictions, labels) == 1.5
    assert comparing.quality("root_mean_squared_error", predictions, labels) == pytest.approx(np.sqrt(2.5))


@pytest.mark.parametrize("metric", ["accuracy", "top5_accuracy", "mean_absolute_error"])
def test_labels_of_another_number_are_refused(metric: str) -> None:
    with pytest.raises(ValueError, match=r"\(4, 3\)|broadcast"):
        comparing.quality(metric, SCORES, np.array([0, 1, 2]))
