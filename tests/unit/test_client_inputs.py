"""A request is refused in a sentence before it is sent, or sent as the signature has it."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from model_registry.errors import InvalidInputError
from model_registry.servable import Signature, TensorInfo
from model_registry.serving.client_inputs import InputCheck
from model_registry.serving.client_tensors import DTYPES

IMAGE = TensorInfo("image", "float32", (None, 2))
IDS = TensorInfo("ids", "int32", (None,))
TEXT = TensorInfo("text", "string", (None,))


def check(*inputs: TensorInfo) -> InputCheck:
    return InputCheck(Signature("serving_default", "predict", inputs, ()))


def taken(value: Any, dtype: str, shape: tuple[int | None, ...] | None = None) -> Any:
    """What is sent for a value, for an input of this dtype."""
    ((name, array, number),) = check(TensorInfo("x", dtype, shape)).tensors({"x": value})
    assert (name, number) == ("x", DTYPES[dtype])
    return array


def refusal(given: Any, *inputs: TensorInfo) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        check(*inputs).tensors(given)
    return caught.value


def test_an_array_that_fits_is_sent_as_it_is() -> None:
    image = np.ones((3, 2), np.float32)

    assert check(IMAGE).tensors({"image": image})[0][1] is image


def test_a_single_array_is_for_the_only_input() -> None:
    assert check(IMAGE).tensors([[1, 2]])[0][1].tolist() == [[1.0, 2.0]]
    assert "expected a mapping with image float32 [null, 2], ids int32 [null]" in refusal([[1, 2]], IMAGE, IDS).message


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([[1, 2]], "float32"),
        ([0.1, 2], "float16"),
        ([1, 255], "uint8"),
        ([-128], "int8"),
        (7, "int64"),
        (True, "bool"),
        ([True], "int32"),
        ([1.5], "bfloat16"),
        ([3], "bfloat16"),
        ([], "int32"),
        ([1 + 2j], "complex64"),
        (np.array([1, 2], np.int32), "float64"),
        (np.array([1, 2], np.uint8), "int32"),
        (np.array([1.5], np.float16), "float32"),
        (np.array([1.5], ml_dtypes.bfloat16), "float32"),
        (np.array([1.5], np.float32), "bfloat16"),
        (np.float32(1.5), "float64"),
        (np.array([1, 2], ">i4"), "int32"),
    ],
)
def test_values_that_the_dtype_can_hold_are_taken(value: Any, dtype: str) -> None:
    found = taken(value, dtype)

    assert found.dtype == np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    assert found.dtype.isnative
    assert np.allclose(found.astype(np.complex128), np.asarray(value).astype(np.complex128), rtol=1e-3)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (np.array([1.0]), "float32", "expected float32 of unknown rank, found float64 [1]"),
        (np.array([1]), "int32", "found int64 [1]"),
        (np.float64(1), "float32", "found float64 []"),
        (np.array([True]), "string", "found a bool in it"),
        ([1.5], "int32", "found float64 [1]"),
        ([256], "uint8", "found 256 to 256"),
        ([-1, 3], "uint64", "found -1 to 3"),
        ([-1, 2**63], "uint64", f"found -1 to {2**63}"),
        ([1, 2**64], "uint64", f"found 1 to {2**64}"),
        ([2**63, 1], "int64", f"found 1 to {2**63}"),
        ([1e39], "float32", "found 1e+39"),
        ([1e6], "float16", "found 1000000.0"),
        ([1], "bool", "found int64 [1]"),
        ([1j], "float32", "found complex128 [1]"),
        (["7"], "int32", "found strings"),
        ("7", "float32", "found strings"),
        ([[1], [2, 3]], "int32", "is no array"),
        ([None], "float32", "objects"),
        ({"a": 1}, "float32", "objects"),
        ([1], "qint8", "cannot be sent from here"),
        ([1], "string", "found a int in it"),
    ],
)
def test_values_that_would_become_others_are_refused(value: Any, dtype: str, expected: str) -> None:
    error = refusal({"x": value}, TensorInfo("x", dtype, None))

    assert expected in error.message
    assert "signature 'serving_default'" in error.message


def test_whole_numbers_beyond_int64_keep_every_digit_beside_small_ones() -> None:
    assert taken([2**63, 1], "uint64").tolist() == [2**63, 1]
    assert taken([[2**64 - 1], [0]], "uint64").tolist() == [[2**64 - 1], [0]]


def test_an_array_of_another_dtype_is_refused_with_what_to_write() -> None:
    assert refusal({"image": np.ones((1, 2))}, IMAGE).hint == "give array.astype('float32') if that is meant"


def test_infinities_and_nan_are_values_too() -> None:
    assert taken([float("inf"), float("nan")], "float32").tolist()[0] == float("inf")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("grün", "grün".encode()),
        (b"\x00", b"\x00"),
        (["a", b"\x00"], [b"a", b"\x00"]),
        ([["a"], ["b"]], [[b"a"], [b"b"]]),
        (np.array(["grün"]), ["grün".encode()]),
        (np.array([b"a"]), [b"a"]),
        (np.array(["a", b"\x00"], dtype=object), [b"a", b"\x00"]),
        ([], []),
    ],
)
def test_strings_are_taken_in_every_form(value: Any, expected: Any) -> None:
    assert taken(value, "string").tolist() == expected


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((3, 2), True), ((0, 2), True), ((3, 1), False), ((2,), False), ((), False), ((1, 3, 2), False)],
    ids=str,
)
def test_rank_and_fixed_sizes_are_held(shape: tuple[int, ...], fits: bool) -> None:
    image = np.ones(shape, np.float32)
    if fits:
        assert check(IMAGE).tensors({"image": image})
    else:
        assert f"has shape {list(shape)}, expected float32 [null, 2]" in refusal({"image": image}, IMAGE).message


def test_a_row_without_its_batch_is_told_how_to_be_one() -> None:
    assert "array[None]" in str(refusal({"image": np.ones(2, np.float32)}, IMAGE).hint)
    assert refusal({"image": np.ones(3, np.float32)}, IMAGE).hint is None


def test_a_scalar_and_any_rank_are_taken_where_the_signature_says_so() -> None:
    assert taken(1.5, "float32", ()).shape == ()
    assert taken(np.ones((1, 2, 3), np.float32), "float32", None).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"imag": [[1, 2]], "ids": [1]}, "no input 'imag'; did you mean 'image'?"),
        ({"image": [[1, 2]], "ids": [1], "zzz": 1}, "no input 'zzz': expected image"),
        (
            {"image": [[1, 2]]},
            "input 'ids' is missing: expected image float32 [null, 2], ids int32 [null], found image",
        ),
        ({}, "input 'image' is missing: expected image float32 [null, 2], ids int32 [null], found none"),
    ],
)
def test_names_are_held_and_the_nearest_is_told(given: Any, expected: str) -> None:
    assert expected in refusal(given, IMAGE, IDS).message


def test_every_input_has_the_same_number_of_rows() -> None:
    fixed = TensorInfo("scale", "float32", (1,))
    good = {"image": [[1, 2]] * 3, "ids": [1, 2, 3], "scale": [0.5]}

    assert len(check(IMAGE, IDS, fixed).tensors(good)) == 3
    error = refusal(good | {"ids": [1, 2]}, IMAGE, IDS, fixed)
    assert re.search("same number of rows, found image: 3, ids: 2$", error.message)


def test_an_array_laid_out_otherwise_is_sent_by_rows() -> None:
    array = taken(np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2)), "float32")

    assert np.frombuffer(array.tobytes(), np.float32).tolist() == [0, 1, 2, 3, 4, 5]


def test_strings_and_numbers_go_together() -> None:
    found = check(TEXT, IDS).tensors({"ids": [1], "text": ["a"]})

    assert [(name, array.tolist()) for name, array, _ in found] == [("text", [b"a"]), ("ids", [1])]
