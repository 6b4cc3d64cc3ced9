"""A request to a signature, as a person has it in a file: read, and held against the manifest.

Two forms: an .npz with an array for each input, and the JSON of TensorFlow Serving's REST API
(https://www.tensorflow.org/tfx/serving/api_rest): `{"instances": [...]}` by rows, `{"inputs": ...}` by
columns, `{"examples": [...]}` of plain features for classify and regress. What does not fit is refused
here, in a sentence, before TensorFlow is asked. Needs numpy, no TensorFlow.
"""

from __future__ import annotations

import base64
import binascii
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json

from model_registry.errors import InvalidInputError
from model_registry.servable import Signature, TensorInfo
from tasks.model_process.arrays import read_npz

Array = npt.NDArray[Any]

MAX_JSON_BYTES = 64 << 20
MAX_NPZ_BYTES = 1 << 30  # unpacked
_FORMS = '{"instances": [...]} or {"inputs": {...}}'
_CONTAINERS = {"bfloat16": "float32"}  # numpy has no bfloat16 of its own; the model process rounds


def read_request(path: Path, signature: Signature) -> dict[str, Array]:
    """Reads a request file.

    Args:
        path: An .npz file or a .json file.
        signature: What it is for, from the manifest.

    Returns:
        Arrays by input name, in the signature's dtypes and shapes, strings as bytes objects; for
        classify and regress by feature name, [rows, ...].

    Raises:
        InvalidInputError: If the file cannot be read, is too large, or does not fit the signature.
    """
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_json(path, signature)
    if signature.method != "predict":
        return _features(arrays)
    missing = [item.name for item in signature.inputs if item.name not in arrays]
    if missing:
        raise InvalidInputError(
            f"{path.name} has no input {missing[0]!r} of signature {signature.name!r}: "
            f"found {', '.join(arrays) or 'nothing'}, expected {', '.join(item.name for item in signature.inputs)}",
            hint=f"slipway show tells each input's dtype and shape: {_shown(signature.inputs)}",
        )
    fitted = {item.name: _fitted(arrays[item.name], item) for item in signature.inputs}
    _check_rows(fitted, signature)
    return fitted


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            return read_npz(file, MAX_NPZ_BYTES)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path.name}: {error.message}", hint="ask with fewer rows at once") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(
            f"{path.name} cannot be read as an .npz file of plain arrays: {error}",
            hint="write it with numpy.savez(path, image=...); strings as numpy str or bytes, not objects",
        ) from None


def _read_json(path: Path, signature: Signature) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise InvalidInputError(
                f"{path.name} has more than {MAX_JSON_BYTES:,} bytes", hint="an .npz file holds the same in a fraction"
            )
        document = from_json(data)
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"{path.name} is neither JSON nor named .npz: {error}", hint=f"expected {_FORMS}, or an .npz file"
        ) from None
    forms = {"instances", "inputs", "examples"}
    found = sorted(forms & document.keys()) if isinstance(document, dict) else []
    if len(found) != 1:
        raise InvalidInputError(f"{path.name} is no request: expected {_FORMS}, found {_brief(document)}")
    named = document.get("signature_name", signature.name)
    if named != signature.name:
        raise InvalidInputError(
            f"{path.name} is for signature {named!r}, but {signature.name!r} is asked", hint="give --signature"
        )
    columns = _columns(found[0], document[found[0]], signature)
    return {name: _array(value, name) for name, value in columns.items()}


def _columns(form: str, value: Any, signature: Signature) -> dict[str, Any]:
    """The request's values by input, whatever form they came in."""
    if (form == "examples") != (signature.method != "predict"):
        expected = _FORMS if signature.method == "predict" else '{"examples": [{"feature": ...}]}'
        raise InvalidInputError(f"signature {signature.name!r} is for {signature.method}: expected {expected}")
    names = [item.name for item in signature.inputs]
    if form == "inputs":
        columns = value if isinstance(value, dict) and "b64" not in value else {names[0]: value}
        if columns is not value and len(names) != 1:
            raise InvalidInputError(f"`inputs` needs a value for each of {', '.join(names)}, found {_brief(value)}")
    else:
        if not isinstance(value, list) or not value:
            raise InvalidInputError(f"`{form}` must be a list of at least one row, found {_brief(value)}")
        columns = _transposed(form, value, names, plain=form == "examples")
    unknown = [name for name in columns if name not in names]
    if unknown and form != "examples":
        raise InvalidInputError(
            f"signature {signature.name!r} has no input {unknown[0]!r}: expected {', '.join(names)}"
        )
    return columns


def _transposed(form: str, rows: list[Any], names: list[str], *, plain: bool) -> dict[str, Any]:
    if not plain and len(names) == 1 and not (isinstance(rows[0], dict) and "b64" not in rows[0]):
        return {names[0]: rows}
    keys = rows[0].keys() if isinstance(rows[0], dict) else None
    if not keys:
        expected = f'{{"{names[0]}": ...}}' if not plain else "an object of features"
        raise InvalidInputError(f"each of `{form}` must be {expected}, found {_brief(rows[0])}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != keys:
            raise InvalidInputError(
                f"{form}[{index}] has {_brief(row)}, {form}[0] has {', '.join(keys)}: expected the same in every row"
            )
    return {key: [row[key] for row in rows] for key in keys}


def _array(value: Any, name: str) -> Array:
    plain, strings = _decoded(value, name)
    try:
        # numpy would cut zero bytes off strings and make text of the numbers beside them.
        array = np.array(plain, dtype=object if strings else None)
    except (ValueError, OverflowError):
        raise InvalidInputError(f"{name}: the rows of a list differ in length, or nest too deeply") from None
    if not strings and array.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name}: expected numbers, booleans or strings, found null or a number too large")
    if strings and not all(isinstance(item, bytes) for item in array.ravel()):
        raise InvalidInputError(f"{name}: expected strings, found something else among them")
    return array


def _decoded(value: Any, name: str) -> tuple[Any, bool]:
    """The value with its strings as bytes, and whether there were any."""
    if isinstance(value, list):
        decoded = [_decoded(item, name) for item in value]
        return [item for item, _ in decoded], any(strings for _, strings in decoded)
    if isinstance(value, str):
        return value.encode(), True
    if isinstance(value, dict):
        try:
            if value.keys() == {"b64"}:
                return base64.b64decode(value["b64"], validate=True), True
        except (binascii.Error, TypeError, ValueError) as error:
            raise InvalidInputError(f'{name}: {{"b64": ...}} is not base64: {error}') from None
        raise InvalidInputError(f'{name}: expected a value, a list or {{"b64": ...}}, found {_brief(value)}')
    return value, False


def _fitted(array: Array, item: TensorInfo) -> Array:
    """The array in the input's dtype.

    Raises:
        InvalidInputError: If its shape is another, or its values cannot be held.
    """
    shape = item.shape
    if shape is not None and not _fits(array.shape, shape):
        rowless = len(array.shape) == len(shape) - 1 and _fits(array.shape, shape[1:])
        raise InvalidInputError(
            f"input {item.name!r} has shape {list(array.shape)}, expected {_shape(item)}",
            hint="wrap it in one more list: the first dimension counts the rows" if rowless else None,
        )
    if item.dtype == "string":
        return _as_bytes(array, item.name)
    try:
        target = np.dtype(_CONTAINERS.get(item.dtype, item.dtype))
    except TypeError:
        target = np.dtype(object)
    if target.kind not in "biuf":
        raise InvalidInputError(
            f"input {item.name!r} is {item.dtype}, which a file cannot hold", hint="ask a running server instead"
        )
    if array.size and (array.dtype.kind not in "biuf" or (target.kind in "biu" and array.dtype.kind == "f")):
        found = "strings" if array.dtype.kind in "OSU" else str(array.dtype)
        raise InvalidInputError(f"input {item.name!r} is {found}, expected {item.dtype}")
    with np.errstate(over="ignore"):
        cast = array.astype(target)
    lost = target.kind in "biu" and not np.array_equal(cast, array)
    if lost or (target.kind == "f" and np.isinf(cast).sum() != np.isinf(array).sum()):
        raise InvalidInputError(f"input {item.name!r} holds values that {item.dtype} cannot: found {_range(array)}")
    return cast


def _features(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Plain features for tf.Example: the model's own parser knows their dtypes and shapes, the manifest does not."""
    features = {name: _as_bytes(a, name) if a.dtype.kind in "OSU" else a for name, a in arrays.items()}
    lengths = {name: len(array) if array.ndim else 0 for name, array in features.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items()) or "no feature"
        raise InvalidInputError(f"every feature needs the same number of rows, at least 1; found {shown}")
    return features


def _check_rows(arrays: Mapping[str, Array], signature: Signature) -> None:
    rows = {item.name: len(arrays[item.name]) for item in signature.inputs if item.shape and item.shape[0] is None}
    if len(set(rows.values())) > 1:
        shown = ", ".join(f"{name}: {count}" for name, count in rows.items())
        raise InvalidInputError(f"every input needs the same number of rows, found {shown}")
    if 0 in rows.values():
        raise InvalidInputError("the request has no rows, expected at least 1")


def _as_bytes(array: Array, name: str) -> Array:
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    if array.dtype.kind not in "SO":
        raise InvalidInputError(f"input {name!r} is {array.dtype}, expected strings")
    return array.astype(object)


def _fits(found: Iterable[int], wanted: tuple[int | None, ...]) -> bool:
    sizes = tuple(found)
    return len(sizes) == len(wanted) and all(w is None or w == f for f, w in zip(sizes, wanted, strict=True))


def _shape(item: TensorInfo) -> str:
    return "any shape" if item.shape is None else json.dumps(item.shape)


def _shown(inputs: Iterable[TensorInfo]) -> str:
    return ", ".join(f"{item.name} {item.dtype} {_shape(item)}" for item in inputs)


def _range(array: Array) -> str:
    return f"{array.min()} to {array.max()}"


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, list(value)[:5])) or 'no keys'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _unreadable(path: Path, error: OSError) -> InvalidInputError:
    return InvalidInputError(f"{path} cannot be read: {error.strerror or error}", hint="give an .npz or .json file")
