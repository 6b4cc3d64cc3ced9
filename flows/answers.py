"""A model's answers for programs and for people. Pure: numpy arrays in, plain values and lines out."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.tables import printable
from tasks.model_process.comparing import is_class_scores

Array = npt.NDArray[Any]

_ROWS = 10
_VALUES = 64
_CHUNK = 65_536


def rest_value(array: Array) -> Any:
    """Nested lists as TensorFlow Serving's REST API answers: numbers in their shortest form, strings as text.

    Bytes that are no UTF-8 become `{"b64": ...}`. NaN and infinities stay floats, which `json` writes
    as NaN and Infinity, as the REST API does.
    """
    if array.dtype == object:
        values = [_text(value) for value in array.ravel()]
    elif array.dtype.kind == "f" and array.dtype.itemsize < 8:
        # 0.1 and not 0.10000000149011612: as few digits as tell one float32 from the next.
        flat = array.ravel()
        values = [
            value
            for start in range(0, flat.size, _CHUNK)
            for value in flat[start : start + _CHUNK].astype(str).astype(np.float64).tolist()
        ]
    else:
        return array.tolist()
    return _nested(values, array.shape)


def answer_lines(outputs: Mapping[str, Array]) -> Iterator[str]:
    """A short readable form: the classes that lead for class scores, anything else abbreviated as numpy does."""
    for name, array in outputs.items():
        yield f"{printable(name)}  {_dtype(array)} {list(array.shape)}"
        if is_class_scores(array):
            yield from _leading_classes(array)
        else:
            yield from (f"  {line}" for line in _abbreviated(array).splitlines())


def _leading_classes(scores: Array) -> Iterator[str]:
    for row, values in enumerate(scores[:_ROWS]):
        best = np.argsort(-values, kind="stable")[:3]
        first, *others = (f"{int(index)} ({float(values[index]):.4f})" for index in best)
        yield f"  row {row}: class {first}, then {', '.join(others)}"
    if len(scores) > _ROWS:
        yield f"  and {len(scores) - _ROWS} more rows; --json prints them all"


def _abbreviated(array: Array) -> str:
    if array.dtype == object:
        shown = np.empty(array.shape, dtype=object)
        for index in np.ndindex(*array.shape):
            text = _text(array[index])
            shown[index] = printable(text) if isinstance(text, str) else f"{len(array[index])} bytes"
        array = shown
    return np.array2string(array, threshold=_VALUES, edgeitems=3, max_line_width=110, precision=6, suppress_small=True)


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return values[0]
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)] if size else []
    return values if 0 not in shape else np.empty(shape).tolist()


def _dtype(array: Array) -> str:
    return "string" if array.dtype == object else str(array.dtype)
