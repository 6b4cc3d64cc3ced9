"""What a request gives, held against the signature it is for before anything is sent. Pure.

Names, dtypes, ranks and sizes are checked, and one batch size for all. Dtypes:

- A numpy array is taken as it is meant: its own dtype, or one that the signature's can hold every value of (int32 for
  float64). A float64 array for a float32 input is refused: it would be rounded, and has been built at twice the size.
- Python numbers and lists have no dtype. They are taken for the signature's, as long as it can hold them: whole numbers
  within its range, fractions rounded, but not to infinity, and never fractions as whole numbers.
- bfloat16, which numpy has not, also takes float32 arrays, rounded.
- Strings are `str` (as UTF-8), `bytes`, lists of them or numpy arrays of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_registry.errors import InvalidInputError
from model_registry.servable import Signature, TensorInfo
from model_registry.serving.client_tensors import DTYPES, holds, numpy_dtype, whole_numbers
from model_registry.spec_errors import nearest

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Input:
    """What is looked up for each request, found once for each signature."""

    info: TensorInfo
    dtype: np.dtype[Any] | None
    number: int
    shape: tuple[int | None, ...] | None
    free_rows: bool

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape may be sent."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            wanted is None or wanted == found for wanted, found in zip(self.shape, shape, strict=True)
        )


class InputCheck:
    """The check of one signature's inputs."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._inputs = {info.name: _planned(info) for info in signature.inputs}

    def tensors(self, given: Any) -> list[tuple[str, Array, int]]:
        """Name, array and dtype number of each input, as they are sent.

        Args:
            given: Arrays, or what makes one, by input name; a single one where the signature has one input.

        Returns:
            C-contiguous arrays of the signature's dtypes, strings as bytes objects.

        Raises:
            InvalidInputError: If they do not fit.
        """
        if not isinstance(given, Mapping):
            if len(self._inputs) != 1:
                raise self._misfit(f"expected a mapping with {self._names()}, found {type(given).__name__}")
            given = {next(iter(self._inputs)): given}
        if given.keys() != self._inputs.keys():
            raise self._wrong_names(given)
        rows = -1
        found = []
        for name, planned in self._inputs.items():
            array = given[name]
            if type(array) is not np.ndarray or array.dtype != planned.dtype or array.dtype.hasobject:
                array = self._converted(array, planned)
            if not planned.fits(array.shape):
                raise self._wrong_shape(array, planned.info)
            if planned.free_rows:
                if rows not in (-1, array.shape[0]):
                    raise self._different_rows(given)
                rows = array.shape[0]
            found.append((name, array, planned.number))
        return found

    def _converted(self, value: Any, planned: _Input) -> Array:
        info, dtype = planned.info, planned.dtype
        if dtype is None:
            raise self._misfit(f"input {info.name!r} is {info.dtype}, which cannot be sent from here")
        if dtype.kind == "O":
            return self._strings(value, info)
        loose = isinstance(value, (list, tuple, int, float, complex)) and not isinstance(value, np.generic)
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise self._misfit(f"input {info.name!r} is no array: {error}") from None
        if loose and dtype.kind in "iu" and array.dtype.kind in "fO":
            whole = whole_numbers(value)
            if whole is not None:
                return self._rounded(whole, info, dtype)
        if array.dtype.kind in "OSUMm":
            found = "strings" if array.dtype.kind in "SU" else "lists of different lengths, or objects"
            raise self._misfit(f"input {info.name!r}: expected {info.form}, found {found}")
        if loose and _meant(array, dtype):
            return self._rounded(array, info, dtype)
        if np.can_cast(array.dtype, dtype, "safe"):
            return array.astype(dtype)
        if info.dtype == "bfloat16" and array.dtype == np.float32:
            return self._rounded(array, info, dtype)
        raise self._misfit(
            f"input {info.name!r}: expected {info.form}, found {array.dtype} {list(array.shape)}",
            hint=None if loose else f"give array.astype({info.dtype!r}) if that is meant",
        )

    def _rounded(self, array: Array, info: TensorInfo, dtype: np.dtype[Any]) -> Array:
        """Values of no dtype of their own in that of the signature."""
        if dtype.kind in "iu":
            lost = not holds(dtype, array)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                lost = bool((np.isinf(array.astype(dtype)) & np.isfinite(array)).any())
        if lost:
            raise self._misfit(
                f"input {info.name!r} holds values that {info.dtype} cannot: found {array.min()} to {array.max()}"
            )
        return array.astype(dtype)

    def _strings(self, value: Any, info: TensorInfo) -> Array:
        array = value if isinstance(value, np.ndarray) else np.array(value, dtype=object)
        encoded = np.empty(array.size, dtype=object)
        for index, item in enumerate(array.ravel().tolist()):
            if isinstance(item, str):
                encoded[index] = item.encode()
            elif isinstance(item, bytes):
                encoded[index] = item
            else:
                raise self._misfit(f"input {info.name!r}: expected {info.form}, found a {type(item).__name__} in it")
        return encoded.reshape(array.shape)

    def _wrong_names(self, given: Mapping[Any, Any]) -> InvalidInputError:
        unknown = [name for name in given if name not in self._inputs]
        if unknown:
            return self._misfit(
                f"there is no input {unknown[0]!r}{nearest(unknown[0], list(self._inputs))}: expected {self._names()}"
            )
        missing = next(name for name in self._inputs if name not in given)
        return self._misfit(
            f"input {missing!r} is missing: expected {self._names()}, found {', '.join(given) or 'none'}"
        )

    def _wrong_shape(self, array: Array, info: TensorInfo) -> InvalidInputError:
        wanted = info.shape or ()
        rowless = len(array.shape) == len(wanted) - 1 and _planned(TensorInfo(info.name, info.dtype, wanted[1:])).fits(
            array.shape
        )
        return self._misfit(
            f"input {info.name!r} has shape {list(array.shape)}, expected {info.form}",
            hint="the first dimension counts the rows: give array[None] for a single one" if rowless else None,
        )

    def _different_rows(self, given: Mapping[str, Any]) -> InvalidInputError:
        rows = {name: len(np.asarray(given[name])) for name, planned in self._inputs.items() if planned.free_rows}
        shown = ", ".join(f"{name}: {count}" for name, count in rows.items())
        return self._misfit(f"every input needs the same number of rows, found {shown}")

    def _names(self) -> str:
        return ", ".join(f"{name} {planned.info.form}" for name, planned in self._inputs.items())

    def _misfit(self, message: str, *, hint: str | None = None) -> InvalidInputError:
        return InvalidInputError(f"signature {self.signature.name!r}: {message}", hint=hint)


def _meant(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether numbers of no dtype of their own may be taken for this one, if it holds their values."""
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        return True
    # Those of ml_dtypes are of no kind that numpy knows.
    return not array.size or dtype.kind == "V" or np.can_cast(array.dtype, dtype, "same_kind")


def _planned(info: TensorInfo) -> _Input:
    return _Input(
        info,
        numpy_dtype(info.dtype),
        DTYPES.get(info.dtype, 0),
        info.shape,
        free_rows=info.shape is not None and info.shape[:1] == (None,),
    )
