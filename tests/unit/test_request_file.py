"""A request is refused in a sentence, or reaches the model as its signature has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_registry.errors import InvalidInputError
from model_registry.servable import Signature, TensorInfo
from tasks import request_file
from tasks.request_file import read_request


def asked(*inputs: TensorInfo, method: Any = "predict") -> Signature:
    return Signature("serving_default", method, inputs, ())


IMAGE = TensorInfo("image", "float32", (None, 2))
IDS = TensorInfo("ids", "int32", (None,))
TEXT = TensorInfo("text", "string", (None,))


def read(tmp_path: Path, document: Any, *inputs: TensorInfo, method: Any = "predict") -> dict[str, Any]:
    path = tmp_path / "request.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_request(path, asked(*inputs, method=method))


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [[1, 2], [3, 4.5]]},
        {"instances": [{"image": [1, 2]}, {"image": [3, 4.5]}]},
        {"inputs": [[1, 2], [3, 4.5]]},
        {"inputs": {"image": [[1, 2], [3, 4.5]]}, "signature_name": "serving_default"},
    ],
)
def test_rows_and_columns_of_the_rest_api_mean_the_same(tmp_path: Path, document: Any) -> None:
    found = read(tmp_path, document, IMAGE)

    assert found["image"].dtype == np.float32
    assert found["image"].tolist() == [[1.0, 2.0], [3.0, 4.5]]


def test_several_inputs_are_taken_by_name(tmp_path: Path) -> None:
    found = read(tmp_path, {"instances": [{"image": [1, 2], "text": "a", "ids": 7}]}, IMAGE, TEXT, IDS)

    assert found["image"].tolist() == [[1.0, 2.0]]
    assert found["text"].tolist() == [b"a"]
    assert (found["ids"].tolist(), found["ids"].dtype) == ([7], np.int32)


def test_strings_are_utf8_and_b64_is_decoded_whole(tmp_path: Path) -> None:
    found = read(tmp_path, {"instances": ["grün", {"b64": "AAEA"}]}, TEXT)

    assert found["text"].tolist() == ["grün".encode(), b"\0\1\0"]


def test_an_npz_is_taken_by_name_and_what_else_it_holds_is_left(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", image=np.array([[1, 2]]), label=np.array([9]), text=np.array(["ü"]))

    found = read_request(tmp_path / "r.npz", asked(IMAGE, TEXT))

    assert found.keys() == {"image", "text"}
    assert found["image"].dtype == np.float32
    assert found["text"].tolist() == ["ü".encode()]


def test_examples_are_plain_features(tmp_path: Path) -> None:
    document = {"examples": [{"age": 3, "name": "a"}, {"age": 4, "name": "b"}]}

    found = read(tmp_path, document, TensorInfo("inputs", "string", (None,)), method="classify")

    assert found["age"].tolist() == [3, 4]
    assert found["name"].tolist() == [b"a", b"b"]


@pytest.mark.parametrize(
    ("document", "inputs", "expected"),
    [
        ("no json", (IMAGE,), "neither JSON nor named .npz"),
        ([1, 2], (IMAGE,), "is no request"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, (IMAGE,), "is no request"),
        ({"instances": []}, (IMAGE,), "at least one row"),
        ({"instances": [[1, 2, 3]]}, (IMAGE,), r"has shape \[1, 3\], expected \[null, 2\]"),
        ({"instances": [[1, 2], [3]]}, (IMAGE,), "differ in length"),
        ({"instances": [[1, "a"]]}, (IMAGE,), "found something else among them"),
        ({"instances": [["a", "b"]]}, (IMAGE,), "is strings, expected float32"),
        ({"instances": [[1, None]]}, (IMAGE,), "found null"),
        ({"instances": [[1, 10**40]]}, (IDS,), "number too large"),
        ({"instances": [[1, 1e300]]}, (IMAGE,), "values that float32 cannot"),
        ({"instances": [1.5]}, (IDS,), "is float64, expected int32"),
        ({"instances": [2**40]}, (IDS,), "values that int32 cannot"),
        ({"instances": [1]}, (TEXT,), "is int64, expected strings"),
        ({"instances": [{"b64": "!"}]}, (TEXT,), "is not base64"),
        ({"instances": [{"image": [1, 2]}]}, (IMAGE, IDS), "has no input 'ids'"),
        ({"instances": [[1, 2]]}, (IMAGE, IDS), "each of `instances` must be"),
        ({"instances": [{"image": [1, 2]}, {"ids": 1}]}, (IMAGE,), r"instances\[1\] has"),
        ({"inputs": {"picture": [[1, 2]]}}, (IMAGE,), "has no input 'picture'"),
        ({"inputs": {"image": [[1, 2]], "ids": [1, 2]}}, (IMAGE, IDS), "same number of rows"),
        ({"inputs": {"image": [[1, 2]]}, "signature_name": "other"}, (IMAGE,), "for signature 'other'"),
        ({"examples": [{"image": 1}]}, (IMAGE,), "is for predict"),
        ('{"instances": ' + "[" * 5000 + "]" * 5000 + "}", (IMAGE,), "recursion limit"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    tmp_path: Path, document: Any, inputs: tuple[TensorInfo, ...], expected: str
) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        read(tmp_path, document, *inputs)


def test_a_row_without_its_batch_dimension_gets_the_hint(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read(tmp_path, {"inputs": [1, 2]}, IMAGE)

    assert "one more list" in str(refused.value.hint)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", image=np.array([{"a": 1}], dtype=object))

    with pytest.raises(InvalidInputError, match="plain arrays"):
        read_request(tmp_path / "r.npz", asked(IMAGE))


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_file, "MAX_NPZ_BYTES", 100_000)
    np.savez_compressed(tmp_path / "r.npz", image=np.zeros((20_000, 2)))
    assert (tmp_path / "r.npz").stat().st_size < 10_000

    with pytest.raises(InvalidInputError, match="unpack to"):
        read_request(tmp_path / "r.npz", asked(IMAGE))
