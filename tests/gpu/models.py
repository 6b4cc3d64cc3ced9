"""Writes the models that are converted on a GPU, and samples: `python -m tests.gpu.models FOLDER`, in its own process.

Weights are random. As they are drawn, signals fade on their way through a deep network, and its answers to any two
rows lie closer together than the tolerance of half precision: engines that answered always the same would pass. So
each model gets what training would have given it: the statistics of its own batches, and a head that tells rows apart.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# What share of each one's nodes must lie inside engines; the transformer's gathers stay outside.
COVERAGE = {"resnet50": 0.9, "efficientnet_b0": 0.9, "transformer": 0.3, "overflow": 0.0}

ROWS = 40  # samples of a model: the largest batch, and some that fill up another

# How far the scores of a class spread over the rows before the softmax: one standard deviation.
_SPREAD = 0.5

# A sum of 64 ones times this is beyond 65,504, the largest number of half precision.
_LARGE = 3_000.0


def write(folder: Path) -> None:
    """Writes all of them as NAME.keras, and NAME.npz for those that come with samples."""
    for make in (resnet50, efficientnet_b0, transformer):
        model, rows = make()
        model.save(folder / f"{make.__name__}.keras")
        np.savez(folder / f"{make.__name__}.npz", **{model.layers[0].name: rows})
    overflow().save(folder / "overflow.keras")


def resnet50() -> tuple[Any, Any]:
    """ResNet50 for images of 224 pixels and ten classes (of 1000, all score below the tolerance), and samples."""
    import keras

    from tests.support.models import randomised

    keras.utils.set_random_seed(0)
    model, rows = randomised(keras.applications.ResNet50(weights=None, classes=10)), images(224)
    return _as_trained(model, rows), rows


def efficientnet_b0() -> tuple[Any, Any]:
    """EfficientNetB0 for images of 64 pixels and ten classes, and float32 samples [rows, 64, 64, 3]."""
    import keras

    from tests.support import models

    keras.utils.set_random_seed(0)
    model, rows = models.efficientnet_b0(), images(64)
    return _as_trained(model, rows), rows


def transformer() -> tuple[Any, Any]:
    """A transformer that scores 50 ids for each place, and int32 samples [rows, 16]."""
    import keras

    from tests.support import models

    keras.utils.set_random_seed(0)
    model, rows = models.transformer(), np.random.default_rng(0).integers(1, 50, (ROWS, 16)).astype(np.int32)
    return _as_trained(model, rows), rows


def overflow() -> Any:
    """A model whose values no half can hold in between, while its answers are small."""
    import keras

    ones = keras.initializers.Constant
    x = inputs = keras.Input((64,), name="x")
    for index in range(6):  # enough nodes for a segment
        x = keras.layers.Dense(64, activation="relu", name=f"plain_{index}")(x) + 1.0
    x = keras.layers.Dense(64, kernel_initializer=ones(_LARGE), name="large")(x)
    x = keras.layers.Dense(4, kernel_initializer=ones(1 / _LARGE), name="small")(x)
    return keras.Model(inputs, x, name="overflow")


def images(size: int) -> Any:
    """Large patches of colour, which differ more from image to image than noise does: float32 [rows, size, size, 3].

    Args:
        size: Pixels of either side, a multiple of 4.
    """
    generator = np.random.default_rng(0)
    patches, colour = generator.uniform(0, 255, (ROWS, 4, 4, 3)), generator.uniform(0, 255, (ROWS, 1, 1, 3))
    share = generator.uniform(0, 1, (ROWS, 1, 1, 1))
    coarse = (patches * share + colour * (1 - share)).astype(np.float32)
    return coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2)


def _as_trained(model: Any, rows: Any) -> Any:
    """Sets the statistics of batches to those of `rows`, and spreads the scores of the head, a Dense layer."""
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # the moving statistics are those of the next batch
    model(rows, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        # Where a channel hardly varies, to take its mean away would leave little but what half precision rounds off.
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        layer.moving_variance.assign(variance + 0.5 * mean**2)

    head = model.layers[-1]
    features = np.asarray(keras.Model(model.input, head.input)(rows, training=False), np.float64)
    kernel = np.asarray(head.kernel, np.float64)
    scores = features.reshape(-1, len(kernel)) @ kernel
    factor = _SPREAD / scores.std(axis=0)
    head.kernel.assign(kernel * factor)
    head.bias.assign(-scores.mean(axis=0) * factor)
    return model


if __name__ == "__main__":
    write(Path(sys.argv[1]))
