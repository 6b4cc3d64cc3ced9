"""What to make of a candidate's answers beside the trained model's. Pure: numpy in, checks out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_registry.servable import Check
from tasks.model_process.messages import Tolerance

Array = npt.NDArray[Any]

# Rows of class scores add up to 1; half precision keeps three digits of that.
_SUM_TOLERANCE = 5e-3

_LARGEST = float(np.finfo(np.float64).max)

_TELLS_NOTHING = (
    "the tolerance cannot tell the answers of two rows apart: a constant would pass; give samples, or lower atol"
)


def parity(name: str, variant: str, found: Sequence[Array], expected: Sequence[Array], tolerance: Tolerance) -> Check:
    """Whether a candidate answers what the trained model answers.

    Args:
        name: Signature and output, as `serving_default/probabilities`.
        variant: Whose candidate it is.
        found: The candidate's arrays, a case each.
        expected: The model's, in the same order.
        tolerance: For numbers; anything else must be equal.

    Returns:
        A check whose `measured` holds the largest absolute and relative error over all cases, or
        for strings, integers and booleans the number of values that differ. One that passes says so where it proves
        little: where one answer, the same for every row, would have passed as well.
    """
    check = f"parity/{name}"
    limit = {"atol": tolerance.atol, "rtol": tolerance.rtol}
    for one, other in zip(found, expected, strict=True):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            shapes = f"{one.dtype} {list(one.shape)}", f"{other.dtype} {list(other.shape)}"
            return Check(check, variant, *shapes, False, "shape or dtype differs")
    if not sum(one.size for one in found):
        return Check(check, variant, 0, 1, False, "no value to compare: give samples that the output is not empty for")
    if not _is_float(expected[0]):
        differing = sum(int(np.sum(one != other)) for one, other in zip(found, expected, strict=True))
        return Check(check, variant, differing, 0, differing == 0, "values that differ")
    absolute = relative = 0.0
    outside = total = 0
    for one, other in zip(found, expected, strict=True):
        a, b = one.astype(np.float64), other.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = np.where(same, 0.0, np.abs(a - b))
            close = difference <= tolerance.atol + tolerance.rtol * np.abs(b)
            # Relative to the model's value, but not to one that the absolute tolerance covers anyway.
            share = difference / np.maximum(np.abs(b), tolerance.atol or np.finfo(np.float64).tiny)
        # A share of infinity is infinite, and would cover anything.
        inside = same | (close & np.isfinite(a) & np.isfinite(b))
        difference, share = _countable(difference), _countable(share)
        absolute = max(absolute, float(difference.max(initial=0.0)))
        relative = max(relative, float(share.max(initial=0.0)))
        outside += int(np.sum(~inside))
        total += inside.size
    measured = {"max_absolute_error": absolute, "max_relative_error": relative}
    if outside:
        return Check(check, variant, measured, limit, False, f"{outside} of {total} values outside")
    return Check(check, variant, measured, limit, True, _TELLS_NOTHING if tells_nothing(expected, tolerance) else "")


def tells_nothing(expected: Sequence[Array], tolerance: Tolerance) -> bool:
    """Whether one and the same answer would be within the tolerance of every row, although the rows differ.

    A value passes for all rows if it lies between the highest of their lower limits and the lowest of their upper ones.

    Args:
        expected: The model's answers, a case each: floats [rows, ...]. Cases may differ in the shape of a row.
        tolerance: What answers are held against.

    Returns:
        False also for rows that are all the same, and where one is not finite.
    """
    spans: dict[tuple[int, ...], tuple[Array, Array, Array, Array]] = {}
    # Case by case, for all of them at once may not fit into memory.
    for rows in (np.atleast_1d(array.astype(np.float64)) for array in expected if array.size):
        with np.errstate(invalid="ignore"):
            margin = tolerance.atol + tolerance.rtol * np.abs(rows)
            span = (rows - margin).max(axis=0), (rows + margin).min(axis=0), rows.max(axis=0), rows.min(axis=0)
        shape = rows.shape[1:]
        if shape in spans:
            floor, ceiling, largest, smallest = spans[shape]
            floor, ceiling = np.maximum(floor, span[0]), np.minimum(ceiling, span[1])
            span = floor, ceiling, np.maximum(largest, span[2]), np.minimum(smallest, span[3])
        spans[shape] = span
    differ = any(bool(np.any(largest > smallest)) for _, _, largest, smallest in spans.values())
    return differ and all(bool(np.all(floor <= ceiling)) for floor, ceiling, _, _ in spans.values())


def finite(name: str, variant: str, found: Sequence[Array]) -> Check | None:
    """Whether an output has neither NaN nor infinity; None for an output that could not."""
    if not _is_float(found[0]):
        return None
    bad = sum(int(np.sum(~np.isfinite(array.astype(np.float64)))) for array in found)
    return Check(f"finite/{name}", variant, bad, 0, bad == 0, "values that are NaN or infinite" if bad else "")


def top1(
    name: str,
    variant: str,
    found: Array,
    expected: Array,
    tolerance: Tolerance,
    at_least: float,
    min_samples: int,
) -> Check | None:
    """How often candidate and model put the same class first; None where the output is no class scores.

    Class scores are floats [rows, classes >= 2], not negative, that add up to 1 in each row. A class that
    the model scores within `rtol` of its best counts as the best too. Not within `atol`: of many classes
    all may score below that, and then each of them would count.
    """
    if not is_class_scores(expected) or found.shape != expected.shape:
        return None
    choice = found.argmax(axis=1)
    best = expected.max(axis=1)
    chosen = expected[np.arange(len(expected)), choice]
    agreement = float(np.mean(chosen >= best - tolerance.rtol * np.abs(best)))
    check = f"top1/{name}"
    if len(expected) < min_samples:
        detail = f"measured on {len(expected)} rows, the gate asks for {min_samples}"
        return Check(check, variant, agreement, at_least, True, detail)
    return Check(check, variant, agreement, at_least, agreement >= at_least, f"{len(expected)} rows")


def is_class_scores(array: Array) -> bool:
    """Whether an output [rows, classes] looks like the probabilities of classes."""
    if not _is_float(array) or array.ndim != 2 or array.shape[1] < 2 or not len(array):
        return False
    wide = array.astype(np.float64)
    return bool(np.all(wide >= 0) and np.all(np.abs(wide.sum(axis=1) - 1) <= _SUM_TOLERANCE))


def quality(metric: str, predictions: Array, labels: Array) -> float:
    """A metric of predictions against labels.

    Args:
        metric: `accuracy`, `top5_accuracy`, `mean_absolute_error` or `root_mean_squared_error`.
        predictions: [rows, classes] scores, or [rows] or [rows, 1] for a probability or a value.
        labels: [rows] class ids or values, or [rows, classes] one-hot.

    Raises:
        ValueError: If the shapes do not go together.
    """
    if metric in ("accuracy", "top5_accuracy"):
        truth = labels.argmax(axis=1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)
        if predictions.ndim == 2 and predictions.shape[1] > 1:
            best = np.argsort(-predictions, axis=1, kind="stable")[:, : 1 if metric == "accuracy" else 5]
            return float(np.mean(np.any(best == truth[:, np.newaxis], axis=1)))
        if metric == "accuracy" and predictions.size == truth.size and set(np.unique(truth)) <= {0, 1}:
            return float(np.mean((predictions.reshape(-1) > 0.5) == (truth > 0.5)))
    elif predictions.size == labels.size:
        error = predictions.reshape(-1).astype(np.float64) - labels.reshape(-1)
        mean = np.mean(np.abs(error)) if metric == "mean_absolute_error" else np.sqrt(np.mean(error**2))
        return float(_countable(mean))
    raise ValueError(f"{metric} of predictions {predictions.shape} against labels {labels.shape}")


def _countable(values: Any) -> Any:
    """NaN and infinity as the largest number there is: checks pass through JSON, which has neither."""
    return np.nan_to_num(values, nan=_LARGEST, posinf=_LARGEST)


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"
