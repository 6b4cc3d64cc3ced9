"""The pre-flight's rules over what can be found on a machine, and what each refusal tells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_registry.errors import ConversionError
from model_registry.servable import Accelerator
from tasks.model_process import preflight, tensorrt_library
from tasks.model_process.preflight import Machine
from tasks.model_process.tensorrt_library import Library

GIBIBYTE = 1 << 30

LIBRARY = Library("2.17.1", trt_build=True, cuda="12.3", failure="", version="8.6.1")
MACHINE = Machine(
    linked="8.6.1",
    enabled=True,
    driver_failure="",
    visible=None,
    name="Tesla T4",
    compute_capability=(7, 5),
    free=14 * GIBIBYTE,
    driver="535.104.05",
    cuda="12.3",
)


@pytest.mark.parametrize(
    ("changes", "said", "advice"),
    [
        (
            {"tensorflow": "2.18.0", "trt_build": False},
            "TensorFlow, 2.18.0, is built without TF-TRT",
            "slipway[pipeline]",
        ),
        ({"failure": "no such file", "version": ""}, "TensorRT cannot be loaded: no such file", "libnvinfer8"),
        ({"version": ""}, "finds as libnvinfer.so.8.6.1 is not TensorRT", "by these very names"),
        ({"version": "10.8.0"}, "is TensorRT 10.8.0; this TensorFlow needs 8.6.1", "a link to another version"),
    ],
)
def test_a_library_that_cannot_convert_is_refused(changes: dict[str, object], said: str, advice: str) -> None:
    with pytest.raises(ConversionError, match=said) as caught:
        tensorrt_library.judge(replace(LIBRARY, **changes))  # type: ignore[arg-type]

    assert advice in (caught.value.hint or "")


def test_the_library_that_tensorflow_was_linked_with_passes() -> None:
    tensorrt_library.judge(LIBRARY)


@pytest.mark.parametrize(
    ("number", "version"), [(8601, "8.6.1"), (8510, "8.5.10"), (7203, "7.2.3"), (100800, "10.8.0")]
)
def test_the_number_a_library_tells_is_read_as_its_version(number: int, version: str) -> None:
    assert tensorrt_library.version_of(number) == version


def test_importing_tensorflow_is_fatal_only_beside_what_is_not_tensorrt() -> None:
    assert replace(LIBRARY, version="").is_fatal
    assert not LIBRARY.is_fatal
    assert not replace(LIBRARY, failure="no such file", version="").is_fatal
    assert not Library("2.18.0", trt_build=False, cuda="", failure="", version="").is_fatal


def test_a_machine_that_can_convert_is_told_as_the_manifest_has_it() -> None:
    found = preflight.judge(MACHINE, 2 * GIBIBYTE)

    assert found == Accelerator("Tesla T4", "7.5", "535.104.05", "12.3", "8.6.1")
    assert found.variant == "tensorrt-fp16-sm75"


@pytest.mark.parametrize(
    ("changes", "said", "advice"),
    [
        ({"enabled": False}, "does not find it; expected 8.6.1", "slipway[pipeline]"),
        ({"linked": "8.5.3"}, "linked with TensorRT 8.5.3", "slipway[pipeline]"),
        ({"name": "", "driver_failure": "libcuda.so.1: no"}, "no GPU: there is no NVIDIA driver", "--gpus all"),
        ({"name": "", "visible": "-1"}, "no GPU: CUDA_VISIBLE_DEVICES='-1' hides them", "unset CUDA_VISIBLE_DEVICES"),
        ({"name": "", "visible": ""}, "no GPU: CUDA_VISIBLE_DEVICES='' hides them", "unset CUDA_VISIBLE_DEVICES"),
        ({"name": "", "visible": "0"}, "no GPU: the driver is there, and CUDA 12.3's libraries", "and-cuda"),
        ({"compute_capability": (6, 1)}, "compute capability 6.1; FP16 engines need 7.0", "Tensor Cores"),
        ({"compute_capability": None}, "compute capability unknown", "Tensor Cores"),
        ({"compute_capability": (10, 0)}, "capability 10.0; TensorRT 8.6.1 knows GPUs up to 9.0", "Ada or Hopper"),
        ({"compute_capability": (12, 0)}, "capability 12.0; TensorRT 8.6.1 knows GPUs up to 9.0", "Ada or Hopper"),
        ({"free": GIBIBYTE}, "1.0 GiB of Tesla T4's memory are free; .* 2.0 GiB", "nvidia-smi"),
        ({"driver": ""}, "driver cannot be read", "NVIDIA_DRIVER_CAPABILITIES"),
    ],
)
def test_a_machine_that_cannot_convert_is_refused(changes: dict[str, object], said: str, advice: str) -> None:
    with pytest.raises(ConversionError, match=said) as caught:
        preflight.judge(replace(MACHINE, **changes), 2 * GIBIBYTE)  # type: ignore[arg-type]

    assert advice in (caught.value.hint or "")


@pytest.mark.parametrize("capability", [(7, 0), (8, 9), (9, 0)])
def test_every_gpu_with_tensor_cores_that_tensorrt_knows_will_do(capability: tuple[int, int]) -> None:
    assert preflight.judge(replace(MACHINE, compute_capability=capability), GIBIBYTE)
