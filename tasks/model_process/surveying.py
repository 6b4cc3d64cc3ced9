"""What TensorFlow finds to run on: GPUs and TensorRT. In a process of its own, because asking may end it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tasks.model_process.messages import Hardware

# TF-TRT asks the loader for these very names (tensorflow/compiler/tf2tensorrt/stub); the soname alone is not enough.
_LIBRARIES = ("libnvinfer.so.{}", "libnvinfer_plugin.so.{}")


def stages(receive: Callable[[type[Any]], Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One stage, without a plan."""
    del receive
    yield "look for GPUs and TensorRT", survey


def survey() -> Hardware:
    """Asks TensorFlow and the loader. Never calls `get_loaded_tensorrt_version`, which aborts without the library."""
    gpus = tuple(_described(device) for device in tf.config.list_physical_devices("GPU"))
    # Later releases still ship the Python side of TF-TRT, so that an import proves nothing.
    if not tf.sysconfig.get_build_info().get("is_tensorrt_build", False):
        return Hardware(gpus, trt_build=False, trt_library="", trt_failure="")
    names = [name.format(_linked_version()) for name in _LIBRARIES]
    failure = ""
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            failure = failure or str(error)
    return Hardware(gpus, trt_build=True, trt_library=names[0], trt_failure=failure)


def _linked_version() -> str:
    from tensorflow.compiler.tf2tensorrt import _pywrap_py_utils

    return ".".join(str(part) for part in _pywrap_py_utils.get_linked_tensorrt_version())


def _described(device: Any) -> str:
    details = tf.config.experimental.get_device_details(device)
    name = details.get("device_name", device.name)
    capability = details.get("compute_capability")
    return f"{name}, compute capability {capability[0]}.{capability[1]}" if capability else str(name)
