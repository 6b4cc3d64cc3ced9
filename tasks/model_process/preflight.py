"""Whether engines can be built here, found out before anything is spent on it.

Rules, in this order, because what comes first would else end the process or make the next question pointless:
- TensorFlow is built with TF-TRT, and TensorRT's library is there and is the version it was linked with. Only
  then may TensorFlow be imported.
- There is a GPU, it can compute in half precision fast, TensorRT knows it, and enough of its memory is free.
- What the manifest must tell of it can be read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from model_registry.errors import ConversionError
from model_registry.servable import Accelerator
from model_registry.spec import TensorRTSpec
from tasks.model_process import nvidia_driver, tensorrt_library
from tasks.model_process.lean_import import lean_import

# FP16 Tensor Cores begin here, with Volta ("Hardware and Precision" of TensorRT 8.6.1's support matrix). Of the
# GPUs below, most compute half precision slower than single.
CAPABILITY = (7, 0)

# And here ends what TensorRT 8.6.1 can build for, with Hopper (same matrix): Blackwell came later.
NEWEST = (9, 0)

_IMAGE = "deploy/gpu-worker.Dockerfile has all that goes with it"
_FIT = "Volta, Turing, Ampere, Ada or Hopper"
_NO_DRIVER = "convert on a machine with an NVIDIA GPU and its driver; in a container, run it with --gpus all"


@dataclass(frozen=True)
class Machine:
    """What TensorFlow and the driver say of the machine.

    Attributes:
        linked: The TensorRT that TF-TRT was linked with.
        enabled: Whether TF-TRT itself finds it.
        driver_failure: Why CUDA's driver cannot be loaded; empty if it can.
        visible: The value of CUDA_VISIBLE_DEVICES; None where it is not set.
        name: Of the first GPU; empty without one.
        compute_capability: Its own.
        free: Bytes of its memory that TensorFlow may take.
        driver: Version of the driver; empty if it cannot be read.
        cuda: The CUDA that TensorFlow was built with.
    """

    linked: str
    enabled: bool
    driver_failure: str
    visible: str | None
    name: str
    compute_capability: tuple[int, int] | None
    free: int
    driver: str
    cuda: str


def stages(receive: Callable[[type[Any]], Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One stage, without a plan."""
    del receive
    yield "preflight", check


def check(workspace: int = TensorRTSpec().workspace) -> Accelerator:
    """Makes sure that engines can be built here.

    Never calls `get_loaded_tensorrt_version`, which aborts the process where something is wrong.

    Args:
        workspace: Bytes of GPU memory that TensorRT may use for one engine.

    Returns:
        What they will be built on and for.

    Raises:
        ConversionError: If they cannot; says what was found, what is needed and what to install.
    """
    library = tensorrt_library.look()
    try:
        tensorrt_library.judge(library)
    except ConversionError as error:
        if not nvidia_driver.failure():
            raise
        # Nobody shall install TensorRT where it is of no use.
        raise ConversionError(
            f"{error.message}; nor is there an NVIDIA driver", hint=f"{_NO_DRIVER}; {_IMAGE}"
        ) from None
    return judge(_machine(library), workspace)


def judge(machine: Machine, workspace: int) -> Accelerator:
    """The rules over what was found; pure.

    Raises:
        ConversionError: As `check` does.
    """
    if not machine.enabled or machine.linked != tensorrt_library.VERSION:
        raise ConversionError(
            f"TF-TRT is linked with TensorRT {machine.linked} and "
            f"{'loads it' if machine.enabled else 'does not find it'}; expected {tensorrt_library.VERSION}",
            hint=f"pip install 'slipway[pipeline]' brings the TensorFlow that is meant; {_IMAGE}",
        )
    if not machine.name:
        raise ConversionError(f"TensorFlow finds no GPU: {_why_none(machine)[0]}", hint=_why_none(machine)[1])
    if machine.compute_capability is None or machine.compute_capability < CAPABILITY:
        found = "unknown" if machine.compute_capability is None else _dotted(machine.compute_capability)
        raise ConversionError(
            f"{machine.name} has compute capability {found}; FP16 engines need {_dotted(CAPABILITY)}",
            hint=f"take a GPU with FP16 Tensor Cores: {_FIT}",
        )
    if machine.compute_capability > NEWEST:
        raise ConversionError(
            f"{machine.name} has compute capability {_dotted(machine.compute_capability)}; "
            f"TensorRT {tensorrt_library.VERSION} knows GPUs up to {_dotted(NEWEST)}",
            hint=f"it was released before this GPU and cannot build engines for it; take one of {_FIT}",
        )
    if machine.free < workspace:
        raise ConversionError(
            f"{_gibibytes(machine.free)} of {machine.name}'s memory are free; the workspace alone may take "
            f"{_gibibytes(workspace)}",
            hint="end what else uses the GPU (nvidia-smi lists it), or lower `workspace` of tensorrt-fp16 in the spec",
        )
    if not machine.driver:
        raise ConversionError(
            f"the version of {machine.name}'s driver cannot be read, and the manifest must tell it",
            hint="libnvidia-ml.so.1 is missing: in a container, set NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )
    return Accelerator(
        name=machine.name,
        compute_capability=_dotted(machine.compute_capability),
        driver=machine.driver,
        cuda=machine.cuda,
        tensorrt=tensorrt_library.VERSION,
    )


def _why_none(machine: Machine) -> tuple[str, str]:
    """The reason and the remedy."""
    if machine.driver_failure:
        return f"there is no NVIDIA driver ({machine.driver_failure})", _NO_DRIVER
    if machine.visible is not None and machine.visible.split(",")[0].strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={machine.visible!r} hides them", "unset CUDA_VISIBLE_DEVICES, or list GPUs in it"
    remedy = f"pip install 'tensorflow[and-cuda]~=2.17.1' brings the libraries, nvidia-smi tells of the GPU; {_IMAGE}"
    return f"the driver is there, and CUDA {machine.cuda}'s libraries or the GPU are not", remedy


def _machine(library: tensorrt_library.Library) -> Machine:
    with lean_import():
        from tensorflow.compiler.tf2tensorrt import _pywrap_py_utils

        from tasks.model_process import gpus

    gpu = next(iter(gpus.found()), None)
    return Machine(
        linked=".".join(str(part) for part in _pywrap_py_utils.get_linked_tensorrt_version()),
        enabled=bool(_pywrap_py_utils.is_tensorrt_enabled()),
        driver_failure=nvidia_driver.failure(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        name=gpu.name if gpu else "",
        compute_capability=gpu.compute_capability if gpu else None,
        free=gpus.free_bytes() if gpu else 0,
        driver=nvidia_driver.version(),
        cuda=library.cuda,
    )


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
