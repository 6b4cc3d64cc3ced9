"""TensorProto from and to arrays, with the values in the typed fields, where the server puts them too."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tests.support.model_server.errors import ServingError

_FIELDS = {
    "float16": "half_val",
    "bfloat16": "half_val",
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "uint8": "int_val",
    "int16": "int_val",
    "uint16": "int_val",
    "int32": "int_val",
    "uint32": "uint32_val",
    "int64": "int64_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
}


def to_array(alias: str, proto: Any) -> np.ndarray:
    """The array of an input.

    Raises:
        ServingError: If the message contradicts itself.
    """
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError, KeyError):
        raise ServingError("INVALID_ARGUMENT", f"tensor parsing error: {alias}") from None


def to_proto(array: np.ndarray) -> Any:
    """The message of an output."""
    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = array.reshape(-1)
    if array.dtype == object or array.dtype.kind in "SU":
        proto.string_val.extend(tf.compat.as_bytes(value) for value in flat)
        return proto
    field = _FIELDS.get(array.dtype.name)
    if field is None:
        proto.tensor_content = array.tobytes()
    else:
        values = flat.view(np.uint16) if field == "half_val" else flat
        getattr(proto, field).extend(values.tolist())
    return proto
