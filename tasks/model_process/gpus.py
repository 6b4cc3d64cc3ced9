"""The GPUs that TensorFlow finds, and what it may take of one."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: Such as `NVIDIA A100-SXM4-40GB`.
        compute_capability: Such as (8, 0); None where TensorFlow does not tell.
    """

    name: str
    compute_capability: tuple[int, int] | None

    def __str__(self) -> str:
        if self.compute_capability is None:
            return self.name
        return f"{self.name}, compute capability {self.compute_capability[0]}.{self.compute_capability[1]}"


def found() -> tuple[Gpu, ...]:
    """Those that TensorFlow would use, the first first. Touches none of them."""
    devices = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    return tuple(
        Gpu(detail.get("device_name", device.name), detail.get("compute_capability"))
        for device, detail in zip(devices, details, strict=True)
    )


def free_bytes() -> int:
    """How much memory TensorFlow may take of the first GPU now, by its own reckoning; 0 without a GPU.

    It knows what CUDA_VISIBLE_DEVICES and a part of a divided GPU leave; nvidia-smi counts in another order.
    """
    # Without growth, the first session takes all there is from whoever shares the GPU.
    options = tf.compat.v1.ConfigProto(gpu_options=tf.compat.v1.GPUOptions(allow_growth=True))
    with tf.compat.v1.Session(graph=tf.Graph(), config=options) as session:
        limits = (device.memory_limit_bytes for device in session.list_devices() if device.device_type == "GPU")
        return int(next(limits, 0))
