"""Arrays come back from the file they were put in, whatever bytes their strings hold."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_registry.errors import InvalidInputError
from tasks.model_process.arrays import read_arrays, read_npz, write_arrays


def there_and_back(path: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    write_arrays(path, arrays)
    with path.open("rb") as file:
        return read_arrays(file, 1 << 20)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[b"a\0", b""], [b"\xff", b"\0"]], dtype=object),
        np.array([], dtype=object),
        np.array(3.5, dtype=np.float16),
        np.zeros((0, 3), dtype=np.int64),
        np.array([True, False]),
    ],
    ids=["strings", "no string", "scalar", "no row", "booleans"],
)
def test_an_array_comes_back_as_it_was(tmp_path: Path, array: Any) -> None:
    found = there_and_back(tmp_path / "a", {"file": array, "values/x": np.arange(2)})

    assert found.keys() == {"file", "values/x"}
    assert (found["file"].dtype, found["file"].shape) == (array.dtype, array.shape)
    assert found["file"].tolist() == array.tolist()


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="complex"):
        write_arrays(tmp_path / "a", {"x": np.array([1j])})


@pytest.mark.parametrize(
    "members",
    [
        {"bytes/x": np.zeros(3, np.uint8), "lengths/x": np.array([9]), "shape/x": np.array([1])},
        {"bytes/x": np.zeros(3, np.uint8), "lengths/x": np.array([3]), "shape/x": np.array([2])},
        {"shape/x": np.array([1])},
    ],
    ids=["lengths", "shape", "missing"],
)
def test_what_a_process_made_up_is_refused(members: dict[str, Any]) -> None:
    file = io.BytesIO()
    np.savez(file, **members)
    file.seek(0)

    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_arrays(file, 1 << 20)


def test_a_single_array_is_no_npz_file() -> None:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    file.seek(0)

    with pytest.raises(ValueError, match="it is a single array"):
        read_npz(file, 1 << 20)


def test_an_array_that_says_it_is_larger_than_the_memory_is_refused() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 55,)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    file.seek(0)

    with pytest.raises(ValueError, match="does not fit into memory"):
        read_npz(file, 1 << 20)
