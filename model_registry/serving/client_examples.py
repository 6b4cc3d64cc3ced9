"""Requests to classify and regress, which TensorFlow Serving takes as tf.Example, and their answers. Pure.

The model's own parser knows the features' dtypes and shapes; no signature tells them. What can be checked here is that
each feature has a value for each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from model_registry.errors import InvalidInputError
from model_registry.serving.client_messages import Message

Array = npt.NDArray[Any]


def fill_examples(examples: Message, given: Any) -> None:
    """Writes a tf.Example for each row.

    Args:
        examples: The request's, empty: `input.example_list.examples`.
        given: Values [rows, ...] by feature name: strings, numbers or booleans. Or serialized tf.Example messages, as
            a list of bytes.

    Raises:
        InvalidInputError: If the features have different numbers of rows, or none, or are of another kind.
    """
    if not isinstance(given, Mapping):
        _fill_serialized(examples, given)
        return
    features = {name: _values(value, name) for name, value in given.items()}
    rows = {name: len(values) for name, (_, values) in features.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        shown = ", ".join(f"{name}: {count}" for name, count in rows.items()) or "no feature"
        raise InvalidInputError(f"every feature needs the same number of rows, at least 1; found {shown}")
    for row in range(next(iter(rows.values()))):
        feature = examples.add().features.feature
        for name, (kind, values) in features.items():
            getattr(feature[name], kind).value.extend(values[row])


def _fill_serialized(examples: Message, given: Any) -> None:
    for data in np.asarray(given, dtype=object).ravel().tolist():
        if not isinstance(data, bytes):
            raise InvalidInputError(
                f"expected values by feature name, or serialized tf.Example messages; found {type(data).__name__}"
            )
        try:
            examples.add().MergeFromString(data)
        except DecodeError:
            raise InvalidInputError("expected serialized tf.Example messages, found other bytes") from None


def classes(response: Message) -> dict[str, Array]:
    """A classification's `scores`, float32 [rows, classes], and `classes`, bytes objects, where it names them."""
    found = [row.classes for row in response.result.classifications]
    scores = _rectangle([[item.score for item in row] for row in found], np.dtype(np.float32))
    labels = _rectangle([[item.label.encode() for item in row] for row in found], np.dtype(object))
    return {"classes": labels, "scores": scores} if any(labels.ravel()) else {"scores": scores}


def regressions(response: Message) -> dict[str, Array]:
    """A regression's `outputs`, float32 [rows]."""
    return {"outputs": np.array([item.value for item in response.result.regressions], np.float32)}


def _rectangle(rows: list[list[Any]], dtype: np.dtype[Any]) -> Array:
    width = max(map(len, rows), default=0)
    filling = b"" if dtype.kind == "O" else np.nan  # a row that tells fewer classes than another
    array = np.full((len(rows), width), filling, dtype)
    for index, row in enumerate(rows):
        array[index, : len(row)] = row
    return array


def _values(value: Any, name: str) -> tuple[str, list[list[Any]]]:
    """The feature's kind, and its values by row."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(
            f"feature {name!r} is no array: {error}",
            hint="rows of different lengths can be sent as serialized tf.Example messages",
        ) from None
    if array.dtype.kind in "USO":
        # Anew and as objects: numpy cuts zero bytes off the strings that it makes of a list.
        array = array if isinstance(value, np.ndarray) else np.array(value, dtype=object)
        kind = "bytes_list"
    elif array.dtype.kind in "biu":
        array, kind = _int64(array, name), "int64_list"
    elif array.dtype.kind == "f":
        array, kind = array.astype(np.float32), "float_list"
    else:
        raise InvalidInputError(f"feature {name!r} is {array.dtype}: expected numbers, booleans or strings")
    if not array.ndim:
        raise InvalidInputError(f"feature {name!r} is a single value: expected one for each row")
    rows = [
        np.ravel(row).tolist() if array.ndim > 1 else [row] for row in (array if array.ndim > 1 else array.tolist())
    ]
    return kind, [[_bytes(item, name) for item in row] for row in rows] if kind == "bytes_list" else rows


def _int64(array: Array, name: str) -> Array:
    cast = array.astype(np.int64)
    if not np.array_equal(cast, array):
        raise InvalidInputError(f"feature {name!r} holds values above those of int64: found {array.max()}")
    return cast


def _bytes(value: Any, name: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        raise InvalidInputError(f"feature {name!r}: expected strings, found a {type(value).__name__} among them")
    return value
