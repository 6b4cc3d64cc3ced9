"""The rows that warm-up records are cut from and that parity is measured on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_registry.errors import InvalidInputError
from tasks.model_process.arrays import read_npz
from tasks.model_process.signatures import SignatureInput, TracedSignature
from tasks.model_process.synthesis import synthesise

Array = npt.NDArray[Any]

MAX_BYTES = 4 << 30  # unpacked; the model and its answers are in memory beside them


@dataclass(frozen=True)
class Rows:
    """Values for every input of every signature.

    Attributes:
        values: By signature and public input name: array [count, ...], bytes objects for strings.
        count: How many rows there are.
        given: True for a samples file, False for made-up values.
    """

    values: Mapping[str, Mapping[str, Array]]
    count: int
    given: bool

    def batch(self, signature: str, start: int, size: int) -> dict[str, Array]:
        """Rows [start, start + size) of a signature's inputs; past the last row it begins again with the first."""
        indices = np.arange(start, start + size) % self.count
        return {name: array[indices] for name, array in self.values[signature].items()}


def read_samples(path: Path, limit: int = MAX_BYTES) -> dict[str, Array]:
    """The arrays of an .npz file. Pickled objects are never loaded.

    Args:
        path: The file.
        limit: How many bytes it may unpack to.

    Raises:
        InvalidInputError: If it is no .npz file, unpacks to more than the limit, or its arrays differ in length.
    """
    try:
        with path.open("rb") as file:
            arrays = read_npz(file, limit)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"samples {path.name}: {error.message}", hint="give fewer rows: some hundreds are enough"
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(
            f"samples {path.name} cannot be read as an .npz file of plain arrays: {error}",
            hint="write it with numpy.savez(path, image=..., label=...); strings as numpy str or bytes, not objects",
        ) from None
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items()) or "no array"
        raise InvalidInputError(
            f"samples {path.name}: every array needs the same number of rows, at least 1; found {shown}"
        )
    return arrays


def rows_from_samples(arrays: Mapping[str, Array], signatures: Sequence[TracedSignature]) -> Rows:
    """Matches a samples file with the signatures' inputs.

    An input is found under its public name, under the model's own, or under the public name that
    another signature gives it.

    Raises:
        InvalidInputError: If an input is missing, or its dtype or shape does not fit.
    """
    public_names: dict[str, list[str]] = {}
    for signature in signatures:
        for public, item in signature.inputs.items():
            public_names.setdefault(item.source, []).append(public)
    values = {
        signature.name: {
            public: _fitted(_found(arrays, [public, item.source, *public_names[item.source]], signature), public, item)
            for public, item in signature.inputs.items()
        }
        for signature in signatures
    }
    return Rows(values, count=len(next(iter(arrays.values()))), given=True)


def synthesised_rows(model: Any, signatures: Sequence[TracedSignature], count: int) -> Rows:
    """Made-up rows, the same for every signature that feeds the same input of the model."""
    values = {
        signature.name: {
            public: synthesise(model, item.source, item.spec, count) for public, item in signature.inputs.items()
        }
        for signature in signatures
    }
    return Rows(values, count=count, given=False)


def _found(arrays: Mapping[str, Array], names: Iterable[str], signature: TracedSignature) -> Array:
    names = list(dict.fromkeys(names))
    for name in names:
        if name in arrays:
            return arrays[name]
    raise InvalidInputError(
        f"samples: no array for input {names[0]!r} of signature {signature.name!r}; found {', '.join(arrays)}",
        hint=f"add an array named {' or '.join(repr(name) for name in names)}",
    )


def _fitted(array: Array, name: str, item: SignatureInput) -> Array:
    wanted = item.spec.dtype
    if not _fits(array, item):
        raise InvalidInputError(
            f"samples: {name} has shape {list(array.shape)}, expected [rows, "
            f"{', '.join(str(size) for size in item.spec.shape.as_list()[1:])}]".replace("[rows, ]", "[rows]")
        )
    if wanted.name == "string":
        if array.dtype.kind not in "US":
            raise InvalidInputError(f"samples: {name} is {array.dtype}, expected strings")
        encoded = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        return encoded.astype(object)
    target = np.dtype(wanted.as_numpy_dtype)
    allowed = array.dtype.kind in "biuf" and not (target.kind in "biu" and array.dtype.kind == "f")
    cast = array.astype(target) if allowed else array
    if not allowed or (target.kind in "biu" and not np.array_equal(cast, array)):
        raise InvalidInputError(f"samples: {name} is {array.dtype}, which {wanted.name} cannot hold without loss")
    return cast


def _fits(array: Array, item: SignatureInput) -> bool:
    if item.spec.shape.rank is None:
        return True
    if array.ndim != item.spec.shape.rank:
        return False
    wanted = item.spec.shape.as_list()[1:]
    return all(size is None or size == found for size, found in zip(wanted, array.shape[1:], strict=True))
