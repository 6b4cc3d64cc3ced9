"""Tensors as TensorFlow Serving's messages hold them, to and from numpy. Pure.

Requests carry `tensor_content`, the array's own bytes. The server answers in the typed fields (`float_val` and its
kind) or in `tensor_content`, as it likes; both are read. By tensorflow/core/framework/tensor.proto, where a typed
field has fewer values than the shape, the last one stands for all that follow, and nothing for zeros.
"""

from __future__ import annotations

import functools
import math
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from model_registry.errors import FormatError
from model_registry.servable import Method, Signature, TensorInfo
from model_registry.serving.client_messages import Message

Array = npt.NDArray[Any]

STRING = 7
# tensorflow/core/framework/types.proto. What is quantised, a resource or a variant is no client's business.
DTYPES: dict[str, int] = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "string": STRING,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "uint16": 17,
    "complex128": 18,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
_NAMES = {number: name for name, number in DTYPES.items()}
_METHODS: dict[str, Method] = {
    "tensorflow/serving/predict": "predict",
    "tensorflow/serving/classify": "classify",
    "tensorflow/serving/regress": "regress",
}

# Typed fields by dtype. Those of fixed width lie packed on the wire as the array does in memory: their bytes are taken
# whole. The others are variable-length numbers, read one by one.
_PACKED = {
    "float32": ("float_val", 5),
    "float64": ("double_val", 6),
    "complex64": ("scomplex_val", 9),
    "complex128": ("dcomplex_val", 12),
}
_COUNTED = {
    "int64": "int64_val",
    "bool": "bool_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "float16": "half_val",
    "bfloat16": "half_val",
}
_LENGTH_DELIMITED = 2
# One value may stand for a whole tensor, so that a small message could ask for any memory.
_MAX_BYTES = 1 << 30


@functools.cache
def numpy_dtype(name: str) -> np.dtype[Any] | None:
    """The numpy dtype for a TensorFlow dtype name; object for strings, None where this client has none.

    bfloat16 is known where ml_dtypes is installed, which comes with TensorFlow.
    """
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            return None
        return np.dtype(ml_dtypes.bfloat16)
    if name not in DTYPES:
        return None
    return np.dtype(object if name == "string" else name)


def whole_numbers(value: Any) -> Array | None:
    """Whole numbers with all their digits, as objects; None for what is none.

    Of a list with numbers both above int64's and below numpy makes float64, and of one above uint64's objects.

    Args:
        value: Numbers, or lists of them, that numpy makes an array of.
    """
    array = np.array(value, dtype=object)
    return array if all(isinstance(item, Integral) for item in array.ravel()) else None


def holds(dtype: np.dtype[Any], whole: Array) -> bool:
    """Whether an integer dtype has all these whole numbers."""
    limits = np.iinfo(dtype)
    return not whole.size or (limits.min <= int(whole.min()) and int(whole.max()) <= limits.max)


def fill(tensor: Message, array: Array, number: int) -> None:
    """Writes an array, C-contiguous and of the dtype that `number` stands for, into an empty TensorProto."""
    tensor.dtype = number
    shape = tensor.tensor_shape
    shape.SetInParent()  # without it a scalar would have no shape at all
    add = shape.dim.add
    for size in array.shape:
        add(size=size)
    if number == STRING:
        tensor.string_val.extend(array.ravel().tolist())
    else:
        tensor.tensor_content = array.tobytes()


def to_array(tensor: Message, name: str) -> Array:
    """The array in a TensorProto, which may be taken apart on the way; strings as bytes objects.

    Args:
        tensor: As the server sent it.
        name: The output's, for the message.

    Raises:
        FormatError: If it contradicts itself, or is of a dtype that numpy has not.
    """
    dtype_name = _NAMES.get(tensor.dtype, "")
    dtype = numpy_dtype(dtype_name)
    if dtype is None:
        raise FormatError(f"output {name!r} has dtype number {tensor.dtype}, which this client cannot read")
    shape = tuple([dim.size for dim in tensor.tensor_shape.dim])
    count = math.prod(shape)
    if any(size < 0 for size in shape) or count * dtype.itemsize > _MAX_BYTES:
        raise FormatError(f"output {name!r} has shape {list(shape)}, which no answer can have")
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, dtype) if _whole(tensor, dtype) else np.empty(0, dtype)
        if values.size != count:
            found = f"{len(tensor.tensor_content)} bytes"
            raise FormatError(f"output {name!r} has {found}, expected {count} values of {dtype_name}")
        return values.reshape(shape).copy()  # the caller's own, to be written to
    values = _typed(tensor, dtype_name, dtype)
    if values.size > count:
        raise FormatError(f"output {name!r} has {values.size} values, expected {count} for {list(shape)}")
    if values.size < count:
        last = values[-1] if values.size else b"" if dtype.kind == "O" else dtype.type(0)
        values = np.append(values, np.full(count - values.size, last, dtype))
    return values.reshape(shape)


def to_signature(name: str, definition: Message) -> Signature | None:
    """A SignatureDef as a client sees it, tensors by name; None for one that no request can ask for."""
    method = _METHODS.get(definition.method_name)
    if method is None:
        return None
    return Signature(name, method, _infos(definition.inputs), _infos(definition.outputs))


def _infos(tensors: Message) -> tuple[TensorInfo, ...]:
    return tuple(_info(name, tensors[name]) for name in sorted(tensors))


def _info(name: str, tensor: Message) -> TensorInfo:
    shape = tensor.tensor_shape
    sizes = None if shape.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
    return TensorInfo(name, _NAMES.get(tensor.dtype, f"dtype number {tensor.dtype}"), sizes)


def _whole(tensor: Message, dtype: np.dtype[Any]) -> bool:
    return not dtype.hasobject and len(tensor.tensor_content) % dtype.itemsize == 0


def _typed(tensor: Message, name: str, dtype: np.dtype[Any]) -> Array:
    if name in _PACKED:
        field, number = _PACKED[name]
        return _packed(tensor, field, number, dtype)
    if name == "string":
        values = np.empty(len(tensor.string_val), dtype=object)
        values[:] = list(tensor.string_val)
        return values
    found = getattr(tensor, _COUNTED.get(name, "int_val"))
    try:
        if _COUNTED.get(name) == "half_val":
            return np.fromiter(found, np.uint16, len(found)).view(dtype)
        return np.fromiter(found, dtype, len(found))
    except OverflowError:
        raise FormatError(f"an output of {name} has values that {name} cannot hold") from None


def _packed(tensor: Message, field: str, number: int, dtype: np.dtype[Any]) -> Array:
    """A packed field's bytes as they lie on the wire, where protobuf's Python would hand out number after number.

    https://protobuf.dev/programming-guides/encoding/#packed: tag, length, little-endian values.
    """
    scalar = np.dtype(np.float32 if field in ("float_val", "scomplex_val") else np.float64)
    count = len(getattr(tensor, field))
    for other in ("dtype", "tensor_shape", "tensor_content"):
        tensor.ClearField(other)
    wire = tensor.SerializeToString()
    if count and wire[0] == number << 3 | _LENGTH_DELIMITED:
        start = 1
        while wire[start] & 0x80:  # the length's bytes but the last
            start += 1
        values = np.frombuffer(wire, scalar, count, start + 1).copy()
    else:  # nothing, or another field lies before it
        values = np.fromiter(getattr(tensor, field), scalar, count)
    return values[: count - count * scalar.itemsize % dtype.itemsize // scalar.itemsize].view(dtype)
