"""The pre-flight in its process, on the states of TensorRT's library that a machine without GPU can be put into.

The parent always gets a ConversionError that says what to do, and the process never aborts.
"""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from model_registry.errors import ConversionError
from model_registry.servable import Accelerator
from tasks import diagnosis
from tasks.model_process import tensorrt_library
from tasks.model_process.client import ModelProcess
from tasks.model_process.messages import PREFLIGHT, SURVEY, VALIDATE, Hardware, ValidatedCandidate
from tests.support.shared_objects import write_library

pytestmark = pytest.mark.xdist_group("preflight")

WITHIN = 120.0


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where the loader looks first."""
    folder = tmp_path / "lib"
    folder.mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    return folder


def bring_tensorrt(folder: Path, version: int) -> None:
    """Libraries of TensorRT's names that tell a version, and can do nothing else."""
    for name in tensorrt_library.NAMES:
        write_library(folder / name, {"getInferLibVersion": version})


def bring_something_else(folder: Path) -> None:
    """A library of the system's under TensorRT's names."""
    loaded = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    libm = next(path for path in loaded if Path(path).name.startswith("libm"))
    for name in tensorrt_library.NAMES:
        shutil.copyfile(libm, folder / name)


def preflight(directory: Path) -> ConversionError:
    with (
        ModelProcess(PREFLIGHT, directory / "process", failure=ConversionError) as process,
        pytest.raises(ConversionError) as caught,
    ):
        process.result("preflight", Accelerator, WITHIN)
    assert caught.value.hint
    assert "was killed" not in caught.value.message
    return caught.value


def test_without_tensorrts_library_the_error_names_it(tmp_path: Path, libraries: Path) -> None:
    if _is_there(tensorrt_library.NAMES[0]):
        pytest.skip("this machine has TensorRT")

    error = preflight(tmp_path)

    assert "TensorRT cannot be loaded: libnvinfer.so.8.6.1: cannot open shared object file" in error.message


def test_without_the_plugins_library_the_error_names_that(tmp_path: Path, libraries: Path) -> None:
    if _is_there(tensorrt_library.NAMES[1]):
        pytest.skip("this machine has TensorRT")
    bring_tensorrt(libraries, 8601)
    (libraries / tensorrt_library.NAMES[1]).unlink()

    assert "libnvinfer_plugin.so.8.6.1: cannot open shared object file" in preflight(tmp_path).message


def test_another_library_under_that_name_is_told_from_tensorrt(tmp_path: Path, libraries: Path) -> None:
    bring_something_else(libraries)

    assert "what the loader finds as libnvinfer.so.8.6.1 is not TensorRT" in preflight(tmp_path).message


def test_what_is_no_library_at_all_is_an_error(tmp_path: Path, libraries: Path) -> None:
    (libraries / tensorrt_library.NAMES[0]).write_text("not a library")

    assert "file too short" in preflight(tmp_path).message


def test_a_later_tensorrt_under_that_name_is_an_error(tmp_path: Path, libraries: Path) -> None:
    bring_tensorrt(libraries, 100800)

    assert "is TensorRT 10.8.0; this TensorFlow needs 8.6.1" in preflight(tmp_path).message


def test_with_the_library_and_without_a_gpu_the_error_says_so(tmp_path: Path, libraries: Path) -> None:
    bring_tensorrt(libraries, 8601)

    # TensorFlow was imported, found the library, and was linked with the version that the names tell.
    assert "TensorFlow finds no GPU" in preflight(tmp_path).message


def test_a_process_that_imports_tensorflow_beside_a_wrong_library_is_told_with_its_log(
    tmp_path: Path, libraries: Path
) -> None:
    bring_something_else(libraries)

    with (
        ModelProcess(VALIDATE, tmp_path / "process", failure=ConversionError) as process,
        pytest.raises(ConversionError) as caught,
    ):
        process.result("validate", ValidatedCandidate, WITHIN)

    assert "the validate process was killed by SIGABRT while it should validate" in caught.value.message
    assert "getInferLibVersion symbol not found" in caught.value.message


def test_the_doctor_says_what_is_wrong_with_the_library(libraries: Path) -> None:
    bring_something_else(libraries)

    (finding,) = diagnosis._hardware()

    assert (finding.check, finding.verdict) == ("TensorFlow starts", "fail")
    assert "is not TensorRT" in finding.found
    assert "libnvinfer8" in finding.hint


def test_the_doctor_tells_gpus_and_tensorrt(tmp_path: Path, libraries: Path) -> None:
    bring_tensorrt(libraries, 8601)

    with ModelProcess(SURVEY, tmp_path / "process") as process:
        hardware, _ = process.result("look for GPUs and TensorRT", Hardware, WITHIN)

    assert hardware == Hardware((), trt_build=True, trt_library="libnvinfer.so.8.6.1", trt_failure="")


def _is_there(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
