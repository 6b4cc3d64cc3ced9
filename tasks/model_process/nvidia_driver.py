"""NVIDIA's driver, asked without TensorFlow."""

from __future__ import annotations

import ctypes

_VERSION_BYTES = 80  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE of nvml.h


def failure() -> str:
    """Why CUDA's driver cannot be loaded; empty if it can."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return str(error)
    return ""


def version() -> str:
    """What NVML tells, such as `535.104.05`; empty where it does not."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ""
    if nvml.nvmlInit_v2():
        return ""
    text = ctypes.create_string_buffer(_VERSION_BYTES)
    failed = nvml.nvmlSystemGetDriverVersion(text, ctypes.c_uint(_VERSION_BYTES))
    nvml.nvmlShutdown()
    return "" if failed else text.value.decode("ascii", "replace")
