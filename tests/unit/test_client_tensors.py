"""Arrays survive TensorFlow Serving's messages, in whichever fields a server puts them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from model_registry.errors import FormatError
from model_registry.servable import Signature, TensorInfo
from model_registry.serving.client_messages import message_class
from model_registry.serving.client_tensors import DTYPES, fill, to_array, to_signature

TensorProto = message_class("TensorProto")
SignatureDef = message_class("SignatureDef")

NUMBERS = [name for name in DTYPES if name != "string"]


def tensor(dtype: str, shape: list[int], **values: Any) -> Any:
    made = TensorProto(dtype=DTYPES[dtype], **values)
    made.tensor_shape.SetInParent()
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


def sent(array: npt.NDArray[Any], dtype: str) -> Any:
    """A tensor after its way over the wire."""
    made = TensorProto()
    fill(made, array, DTYPES[dtype])
    return TensorProto.FromString(made.SerializeToString())


def typed(dtype: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0, 4), (1, 0)], ids=str)
def test_an_array_is_the_same_after_its_way(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape)) + 1).astype(typed(dtype))[1:].reshape(shape)

    found = to_array(sent(array, dtype), "scores")

    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(), (2,), (2, 1), (0,)], ids=str)
def test_strings_keep_their_zero_bytes(shape: tuple[int, ...]) -> None:
    array = np.full(shape, b"\x00a\xff\x00", dtype=object)

    found = to_array(sent(array, "string"), "texts")

    assert found.shape == shape
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize("content", [True, False], ids=["tensor_content", "typed field"])
def test_an_answer_is_the_callers_own_to_write_to(content: bool) -> None:
    values = {"tensor_content": np.float32(1).tobytes()} if content else {"float_val": [1.0]}

    found = to_array(tensor("float32", [1], **values), "scores")
    found += 1

    assert found.tolist() == [2.0]


@pytest.mark.parametrize(
    ("dtype", "field", "values"),
    [
        ("float32", "float_val", [1.5, -2.0]),
        ("float64", "double_val", [1.5, -2.0]),
        ("int32", "int_val", [7, -1]),
        ("int8", "int_val", [7, -128]),
        ("uint8", "int_val", [7, 255]),
        ("uint16", "int_val", [7, 65535]),
        ("int64", "int64_val", [7, -(2**63)]),
        ("uint32", "uint32_val", [7, 2**32 - 1]),
        ("uint64", "uint64_val", [7, 2**64 - 1]),
        ("bool", "bool_val", [True, False]),
        ("string", "string_val", [b"a", b"\x00"]),
    ],
)
def test_the_typed_field_of_each_dtype_is_read(dtype: str, field: str, values: list[Any]) -> None:
    assert to_array(tensor(dtype, [2], **{field: values}), "scores").tolist() == values


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_lies_in_half_val_as_bits(dtype: str) -> None:
    array = np.array([1.5, -2.0]).astype(typed(dtype))

    found = to_array(tensor(dtype, [2], half_val=array.view(np.uint16).tolist()), "scores")

    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize(("dtype", "field"), [("complex64", "scomplex_val"), ("complex128", "dcomplex_val")])
def test_complex_numbers_lie_in_pairs(dtype: str, field: str) -> None:
    assert to_array(tensor(dtype, [2], **{field: [1, 2, 3, 4]}), "waves").tolist() == [1 + 2j, 3 + 4j]


def test_many_packed_values_are_read_whole() -> None:
    values = np.random.default_rng(0).random(100_000, np.float32)

    assert np.array_equal(to_array(tensor("float32", [100_000], float_val=values.tolist()), "scores"), values)


@pytest.mark.parametrize(
    "other", [{"int_val": [3]}, {"half_val": [3]}, {"string_val": [b"*\x04abcd"]}], ids=lambda value: next(iter(value))
)
def test_a_stray_typed_field_is_not_taken_for_values(other: dict[str, Any]) -> None:
    assert to_array(tensor("float64", [2], double_val=[1.5, 2.5], float_val=[9.0], **other), "scores").tolist() == [
        1.5,
        2.5,
    ]


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("float32", {"float_val": [1.0, 2.0]}, [1.0, 2.0, 2.0, 2.0]),
        ("int64", {"int64_val": [5]}, [5, 5, 5, 5]),
        ("float32", {}, [0.0, 0.0, 0.0, 0.0]),
        ("string", {}, [b"", b"", b"", b""]),
    ],
)
def test_the_last_value_stands_for_those_that_are_left_out(dtype: str, values: Any, expected: list[Any]) -> None:
    assert to_array(tensor(dtype, [4], **values), "scores").tolist() == expected


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (tensor("float32", [2], tensor_content=b"12345"), "5 bytes, expected 2 values"),
        (tensor("float32", [3], tensor_content=b"12345678"), "8 bytes, expected 3 values"),
        (tensor("string", [1], tensor_content=b"1"), "1 bytes, expected 1 values"),
        (tensor("float32", [1], float_val=[1.0, 2.0]), "2 values, expected 1"),
        (tensor("complex64", [2], scomplex_val=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), "3 values, expected 2"),
        (tensor("float32", [-1], float_val=[1.0]), "which no answer can have"),
        (tensor("float32", [1 << 20, 1 << 20], float_val=[1.0]), "which no answer can have"),
        (TensorProto(dtype=20), "dtype number 20"),
        (TensorProto(), "dtype number 0"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(broken: Any, expected: str) -> None:
    with pytest.raises(FormatError, match=expected):
        to_array(broken, "scores")


def test_half_a_complex_number_is_left_out_and_the_last_whole_one_stands_for_it() -> None:
    assert to_array(tensor("complex64", [2], scomplex_val=[1.0, 2.0, 3.0]), "waves").tolist() == [1 + 2j, 1 + 2j]


def test_a_signature_is_told_by_name_with_free_dimensions_as_none() -> None:
    definition = SignatureDef(method_name="tensorflow/serving/predict")
    for name, dtype, sizes in (("words", "string", [-1]), ("image", "float32", [-1, 8])):
        definition.inputs[name].dtype = DTYPES[dtype]
        for size in sizes:
            definition.inputs[name].tensor_shape.dim.add(size=size)
    definition.outputs["anything"].dtype = 20
    definition.outputs["anything"].tensor_shape.unknown_rank = True

    assert to_signature("serving_default", definition) == Signature(
        "serving_default",
        "predict",
        (TensorInfo("image", "float32", (None, 8)), TensorInfo("words", "string", (None,))),
        (TensorInfo("anything", "dtype number 20", None),),
    )


def test_a_signature_without_a_method_is_not_asked_for() -> None:
    assert to_signature("__saved_model_init_op", SignatureDef()) is None
