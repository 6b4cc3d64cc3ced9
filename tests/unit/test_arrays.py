"""Arrays come back from the file they were put in, whatever bytes their strings hold."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_registry.errors import InvalidInputError
from tasks.model_process.arrays import read_arrays, write_arrays


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
