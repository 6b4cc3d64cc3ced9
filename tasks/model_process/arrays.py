"""Arrays in a file, between a model process and its parent: an .npz of plain arrays, never a pickle.

NumPy's own strings lose trailing zero bytes and its object arrays are pickles, so strings lie there as
their bytes in a row, their lengths and their shape. Needs no TensorFlow: the parent reads it too.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from model_registry.errors import InvalidInputError

Array = npt.NDArray[Any]

_NPY = b"\x93NUMPY"
_VALUES, _BYTES, _LENGTHS, _SHAPE = "values/", "bytes/", "lengths/", "shape/"


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays of numbers, booleans or bytes objects by name.

    Raises:
        InvalidInputError: If an array is of another kind, such as complex numbers.
    """
    members: dict[str, Array] = {}
    for name, array in arrays.items():
        if array.dtype.name == "bfloat16":  # numpy has no such dtype of its own; float32 holds every value
            members[_VALUES + name] = array.astype(np.float32)
        elif array.dtype.kind in "biuf":
            members[_VALUES + name] = array
        elif array.dtype == object:
            strings = [bytes(value) for value in array.ravel()]
            members[_BYTES + name] = np.frombuffer(b"".join(strings), dtype=np.uint8)
            members[_LENGTHS + name] = np.array([len(value) for value in strings], dtype=np.int64)
            members[_SHAPE + name] = np.array(array.shape, dtype=np.int64)
        else:
            raise InvalidInputError(f"{name} is {array.dtype}: expected numbers, booleans or strings")
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # Not numpy.savez: it takes names as keywords, and `file` is its own.
        for member, array in members.items():
            with archive.open(f"{member}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]


def read_arrays(file: BinaryIO, limit: int) -> dict[str, Array]:
    """Reads what `write_arrays` wrote; strings come back as bytes objects.

    Args:
        file: The open file.
        limit: How many bytes the arrays may have.

    Raises:
        InvalidInputError: If the file is none of ours, or unpacks to more.
    """
    try:
        members = read_npz(file, limit)
        arrays = {name.removeprefix(_VALUES): array for name, array in members.items() if name.startswith(_VALUES)}
        for member in members:
            if member.startswith(_SHAPE):
                name = member.removeprefix(_SHAPE)
                arrays[name] = _strings(members[_BYTES + name], members[_LENGTHS + name], members[member])
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"the model process left arrays that cannot be read: {error}") from None
    return arrays


def read_npz(file: BinaryIO, limit: int) -> dict[str, Array]:
    """The arrays of an .npz file that somebody gave us. Pickled objects are never loaded.

    Args:
        file: The open file.
        limit: How many bytes it may unpack to.

    Raises:
        InvalidInputError: If it unpacks to more.
        ValueError: If it is no .npz file of plain arrays; so do EOFError and zipfile.BadZipFile.
    """
    if file.read(len(_NPY)) == _NPY:
        raise ValueError("it is a single array, expected named ones")
    with zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > limit:
        raise InvalidInputError(f"the arrays unpack to {size:,} bytes, more than the {limit:,} allowed")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        try:
            return {name: archive[name] for name in archive.files}
        except MemoryError as error:  # a header may say anything of the array's size
            raise ValueError(f"an array does not fit into memory: {error}") from None


def _strings(data: Array, lengths: Array, shape: Array) -> Array:
    if lengths.dtype.kind != "i" or np.any(lengths < 0) or int(lengths.sum()) != data.size:
        raise ValueError("the lengths of strings do not add up")
    raw, ends = data.astype(np.uint8).tobytes(), np.cumsum(lengths)
    array = np.empty(len(lengths), dtype=object)
    for index, end in enumerate(ends):
        array[index] = raw[int(end) - int(lengths[index]) : int(end)]
    return array.reshape([int(size) for size in shape])
