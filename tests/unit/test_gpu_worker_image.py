"""The GPU worker's image cannot be built here; its versions are held against the lock and the installed TensorFlow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.model_process import tensorrt_library

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "gpu-worker.Dockerfile").read_text()
ARGUMENTS = dict(re.findall(r"^ARG (\w+)=(\S+)$", TEXT, re.MULTILINE))


def locked(file: str) -> dict[str, str]:
    """Versions by distribution."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE))


def instructions() -> list[tuple[str, str]]:
    """Instructions in order, lines joined, comments left out."""
    lines = [line for line in TEXT.splitlines() if line and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined]


def test_it_installs_the_tensorrt_that_tensorflow_was_linked_with() -> None:
    assert ARGUMENTS["TENSORRT"].startswith(f"{tensorrt_library.VERSION}.")
    assert '"libnvinfer8=${TENSORRT}"' in TEXT
    assert '"libnvinfer-plugin8=${TENSORRT}"' in TEXT


def test_it_installs_the_cuda_and_cudnn_that_tensorflow_was_built_with() -> None:
    cuda = tensorrt_library.look().cuda

    assert ARGUMENTS["CUDA"] == cuda.replace(".", "-")
    assert ARGUMENTS["BASE"].startswith(f"nvidia/cuda:{cuda}.")
    assert ARGUMENTS["CUDNN"].startswith(f"{locked('gpu.txt')['nvidia-cudnn-cu12']}-")
    assert locked("gpu.txt")["nvidia-cuda-runtime-cu12"].startswith(f"{cuda}.")


@pytest.mark.parametrize("file", ["pipeline.txt", "gpu.txt", "dev.txt"])
def test_every_lock_has_the_tensorflow_that_it_tells(file: str) -> None:
    told = re.search(r"TensorFlow (\d+\.\d+\.\d+)", TEXT)

    assert told is not None
    assert locked(file)["tensorflow"] == told[1]


def test_what_is_locked_for_a_gpu_is_what_the_tests_run_with_and_cudas_libraries() -> None:
    gpu, dev = locked("gpu.txt"), locked("dev.txt")

    assert {name for name, version in gpu.items() if dev.get(name) != version} == {
        name for name in gpu if name.startswith("nvidia-")
    }


def test_everything_it_copies_is_there() -> None:
    sources = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]

    assert "pyproject.toml" in sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_everything_from_the_package_index_is_hashed() -> None:
    installs = [
        part for name, rest in instructions() if name == "RUN" for part in rest.split("&&") if " install " in part
    ]
    from_index = [part for part in installs if "apt-get" not in part and "--offline" not in part]

    assert len(from_index) == 2
    assert all("--require-hashes" in part for part in from_index)


def test_the_worker_runs_as_an_ordinary_user_on_the_pool_gpu() -> None:
    found = instructions()
    names = [name for name, _ in found]

    assert dict(found)["USER"] == "slipway"
    assert "RUN" not in names[names.index("USER") :]
    assert found[-1] == ("CMD", '["prefect", "worker", "start", "--pool", "gpu"]')


def test_it_names_no_registry_of_packages() -> None:
    assert "://" not in TEXT
