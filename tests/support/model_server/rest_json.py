"""The JSON of REST predictions: row `instances` and columnar `inputs`, to arrays and back."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tests.support.model_server.errors import ServingError

ROW, COLUMNAR = "instances", "inputs"


def read_request(body: bytes) -> tuple[str, str, Any]:
    """Takes a request apart.

    Returns:
        The signature's name, ROW or COLUMNAR, and what stands there.

    Raises:
        ServingError: If it is not such a request.
    """
    try:
        document = json.loads(body)
    except ValueError:
        raise ServingError("INVALID_ARGUMENT", "JSON Parse error: Invalid value. at offset: 0") from None
    if not isinstance(document, dict):
        raise ServingError("INVALID_ARGUMENT", "JSON Value: is not an object")
    name = document.get("signature_name", tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY)
    if not isinstance(name, str):
        raise ServingError("INVALID_ARGUMENT", "'signature_name' key must be a string value.")
    found = [form for form in (ROW, COLUMNAR) if form in document]
    if not found:
        raise ServingError("INVALID_ARGUMENT", "Missing 'inputs' or 'instances' key")
    if len(found) > 1:
        message = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        raise ServingError("INVALID_ARGUMENT", message)
    return name, found[0], document[found[0]]


def to_arrays(form: str, value: Any, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a request.

    Args:
        form: ROW or COLUMNAR.
        value: What stands under that key.
        inputs: TensorInfo by the input's name.

    Raises:
        ServingError: If the values are not what the inputs take.
    """
    if form == COLUMNAR:
        named = value if isinstance(value, dict) and not _is_bytes(value) else _only(inputs, value)
    else:
        if not isinstance(value, list) or not value:
            raise ServingError("INVALID_ARGUMENT", "Expecting 'instances' value to be an array/list with an element")
        if isinstance(value[0], dict) and not _is_bytes(value[0]):
            named = {name: [_of(row, name) for row in value] for name in value[0]}
        else:
            named = _only(inputs, value)
    unknown = named.keys() - inputs.keys()
    if unknown:
        raise ServingError(
            "INVALID_ARGUMENT", f"Failed to process element: JSON object: has unexpected key {min(unknown)}"
        )
    return {name: _array(name, column, inputs[name].dtype) for name, column in named.items()}


def to_answer(form: str, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The document of an answer in the form of its request.

    Raises:
        ServingError: If rows were asked for and the outputs have not as many.
    """
    if form == COLUMNAR:
        columns = {name: _listed(name, array) for name, array in outputs.items()}
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    size = None
    for name, array in outputs.items():
        if not array.ndim:
            raise ServingError("INVALID_ARGUMENT", f"Tensor name: {name} has no shape information ")
        if size not in (None, len(array)):
            message = f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}"
            raise ServingError("INVALID_ARGUMENT", message)
        size = len(array)
    rows = {name: _listed(name, array) for name, array in outputs.items()}
    if len(rows) == 1:
        return {"predictions": next(iter(rows.values()))}
    return {"predictions": [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]}


def _only(inputs: Mapping[str, Any], value: Any) -> dict[str, Any]:
    if len(inputs) != 1:
        message = "instances is a plain list, but expecting list of objects as multiple input tensors required"
        raise ServingError("INVALID_ARGUMENT", f"{message} as per tensorinfo_map")
    return dict.fromkeys(inputs, value)


def _of(row: Any, name: str) -> Any:
    if not isinstance(row, dict) or name not in row:
        message = f"Failed to process element: expected every instance to have the input {name}"
        raise ServingError("INVALID_ARGUMENT", message)
    return row[name]


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _array(name: str, value: Any, kind: int) -> np.ndarray:
    dtype = tf.as_dtype(kind)
    try:
        if dtype == tf.string:
            return np.array(_bytes(value), object)
        array = np.array(value)
        if array.dtype.kind not in ("b" if dtype.is_bool else "iuf" if dtype.is_floating else "iu"):
            raise TypeError
        return array.astype(dtype.as_numpy_dtype)
    except (TypeError, ValueError, binascii.Error):
        message = f"JSON Value of {name} is not of expected type: {dtype.name}"
        raise ServingError("INVALID_ARGUMENT", message) from None


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(item) for item in value]
    if _is_bytes(value):
        return base64.b64decode(value["b64"], validate=True)
    if not isinstance(value, str):
        raise TypeError
    return value.encode()


def _listed(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        encode = _as_b64 if name.endswith("_bytes") else _as_text
        return (
            np.array([encode(value) for value in array.reshape(-1)] + [None], object)[:-1].reshape(array.shape).tolist()
        )
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        # The shortest digits that mean this number at its own precision, not at that of a double.
        flat = [float(str(value)) for value in array.reshape(-1)]
        return np.array(flat).reshape(array.shape).tolist()
    return array.tolist()


def _as_b64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _as_text(value: bytes) -> str:
    return value.decode(errors="replace")
