"""What TensorFlow finds to run on: GPUs and TensorRT. In a process of its own, because asking may end it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from model_registry.errors import ConversionError
from tasks.model_process import tensorrt_library
from tasks.model_process.lean_import import lean_import
from tasks.model_process.messages import Hardware


def stages(receive: Callable[[type[Any]], Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One stage, without a plan."""
    del receive
    yield "look for GPUs and TensorRT", survey


def survey() -> Hardware:
    """Asks the loader, then TensorFlow.

    Raises:
        ConversionError: If importing TensorFlow would end the process.
    """
    library = tensorrt_library.look()
    failure = ""
    try:
        tensorrt_library.judge(library)
    except ConversionError as error:
        if library.is_fatal:
            raise
        failure = error.message
    with lean_import():
        from tasks.model_process import gpus

    return Hardware(
        gpus=tuple(str(gpu) for gpu in gpus.found()),
        trt_build=library.trt_build,
        trt_library=tensorrt_library.NAMES[0] if library.trt_build else "",
        trt_failure=failure if library.trt_build else "",
    )
