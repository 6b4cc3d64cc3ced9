"""What the tests on a GPU share. They run in one process, one after another: `make gpu-check`.

Everything that touches the GPU is a process of its own, as in production; this one stays away from it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_registry.errors import ConversionError
from model_registry.servable import Accelerator
from tasks.model_process.client import ModelProcess
from tasks.model_process.messages import PREFLIGHT
from tests.gpu import models
from tests.gpu.packaged import BATCH_SIZES, ROOT, Packaged
from tests.support.command import slipway

_WITHIN = 3_600.0  # seconds for one conversion; engines are built for minutes
# The tests elsewhere give every process one thread; the CPU's share of a request shall not be what is measured.
_OF_THE_OTHER_TESTS = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`benchmarks.gpu_check` gives both."""
    parser.addoption("--gpus", help="CUDA_VISIBLE_DEVICES for the tests on a GPU; `all` for none of that")
    parser.addoption("--gpu-figures", type=Path, help="where the tests on a GPU write what they measured")


@pytest.fixture(scope="session")
def gpu(pytestconfig: pytest.Config) -> Iterator[None]:
    """Lets the processes that are started see the GPU that was chosen."""
    chosen = pytestconfig.getoption("--gpus", default=None)
    if chosen is None:
        pytest.skip("runs by `make gpu-check`, on a machine with an NVIDIA GPU and TensorRT")
    with pytest.MonkeyPatch.context() as patch:
        for name in _OF_THE_OTHER_TESTS:
            patch.delenv(name, raising=False)
        if chosen != "all":
            patch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        yield


@pytest.fixture(scope="session")
def accelerator(gpu: None, tmp_path_factory: pytest.TempPathFactory) -> Accelerator:
    """What the pre-flight finds here. It was asked before, so that no skip can pass for a run on a GPU."""
    with ModelProcess(PREFLIGHT, tmp_path_factory.mktemp("preflight") / PREFLIGHT, failure=ConversionError) as process:
        return process.result("preflight", Accelerator, 300)[0]


@pytest.fixture(scope="session")
def keras_files(accelerator: Accelerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of `models`, and their samples."""
    folder = tmp_path_factory.mktemp("keras")
    command = [sys.executable, "-m", models.__name__, str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}, check=True, timeout=600)
    return folder


@pytest.fixture(scope="session")
def package(
    accelerator: Accelerator, keras_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Packaged]:
    """Packages a model with the variant asked for by name, once."""
    made: dict[str, Packaged] = {}

    def packaged(name: str) -> Packaged:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            spec, samples = folder / "package.yaml", keras_files / f"{name}.npz"
            spec.write_text(
                f"model: {name}\nbatch_sizes: {list(BATCH_SIZES)}\nvariants:\n"
                f"  tensorrt-fp16: {{min_coverage: {models.COVERAGE[name]}}}\n"
                + (f"samples: {samples}\n" if samples.exists() else "")
            )
            arguments = ["package", keras_files / f"{name}.keras", "--spec", spec, "--variant", "tensorrt-fp16"]
            registry = folder / "registry"
            outcome = slipway(*arguments, "--registry", registry, "--json", folder=folder, timeout=_WITHIN)
            made[name] = Packaged(name, outcome, registry, accelerator)
        return made[name]

    return packaged


@pytest.fixture
def note(pytestconfig: pytest.Config) -> Callable[[Packaged], None]:
    """Notes what was measured on a model, for docs/gpu.md."""
    path = pytestconfig.getoption("--gpu-figures", default=None)

    def write(packaged: Packaged) -> None:
        if path is not None:
            with path.open("a") as file:
                file.write(json.dumps({"model": packaged.name, "checks": list(packaged.checks.values())}) + "\n")

    return write
