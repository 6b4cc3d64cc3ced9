"""Writes a folder of saved models: `python -m tests.support.keras_files FOLDER`.

tiny.keras, tiny.h5      x (4 numbers) to y (2)
weights.h5               the same weights without the model
brings_code.keras        a Lambda layer
custom.keras             a layer of the module harbour_layers, which lies beside it
half.keras               computes in float16
deep.keras               x (4 numbers) to y (2) through enough layers for an engine of TensorRT
saved_model/             tiny as a SavedModel
samples.npz              200 rows of x
"""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.model_process.lean_import import lean_import

CUSTOM_MODULE = "harbour_layers"


def write(folder: Path) -> None:
    """Writes all of them."""
    with lean_import():
        import keras
        import numpy as np

        from tests.support import models

    (folder / f"{CUSTOM_MODULE}.py").write_text(models.CUSTOM_LAYERS)
    sys.path.insert(0, str(folder))

    keras.utils.set_random_seed(0)
    x = keras.Input((4,), name="x")
    tiny = keras.Model(x, keras.layers.Dense(2, name="y")(x), name="tiny")
    tiny.save(folder / "tiny.keras")
    tiny.save(folder / "tiny.h5")
    tiny.save_weights(folder / "tiny.weights.h5")
    (folder / "tiny.weights.h5").rename(folder / "weights.h5")
    tiny.export(folder / "saved_model", verbose=False)
    deep = x
    for _ in range(6):
        deep = keras.layers.Dense(8, activation="tanh")(deep)
    models.randomised(keras.Model(x, keras.layers.Dense(2, name="y")(deep), name="deep")).save(folder / "deep.keras")
    models.lambda_layer().save(folder / "brings_code.keras")
    models.custom_layer().save(folder / "custom.keras")
    models.mixed_float16().save(folder / "half.keras")
    np.savez(folder / "samples.npz", x=np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
