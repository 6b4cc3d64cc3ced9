"""The models that are measured: ResNet50 and a dense one of 500 MB, both with random weights.

Run as a program, in a process of its own: python -m benchmarks.models DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

RESNET50 = "resnet50.keras"
DENSE = "dense500.keras"


def make(directory: Path) -> None:
    """Writes both models, if they are not there."""
    import keras

    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / RESNET50).exists():
        keras.applications.ResNet50(weights=None).save(directory / RESNET50)
    if not (directory / DENSE).exists():
        x = inputs = keras.Input((4096,), name="features")
        for index in range(7):
            x = keras.layers.Dense(4096, activation="relu", name=f"dense_{index}")(x)
        outputs = keras.layers.Dense(1000, activation="softmax", name="probabilities")(x)
        keras.Model(inputs, outputs).save(directory / DENSE)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
