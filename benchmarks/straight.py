"""What a person would write without Slipway: load, export, try it once with saved_model_cli, copy.

Exports the same way as Slipway does, so that the difference is all that Slipway adds.

    python -m benchmarks.straight MODEL.keras DESTINATION
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


def main() -> None:
    """Loads argv[1] and leaves a SavedModel in argv[2]."""
    model = keras.models.load_model(sys.argv[1], compile=False)
    tensor, output = model.inputs[0], model.output_names[0]
    module = tf.Module()
    module.resources = [variable.value for variable in model.variables]
    serve = tf.function(lambda inputs: {output: model(inputs, training=False)})
    signature = serve.get_concrete_function(tf.TensorSpec(tensor.shape, tensor.dtype, name="inputs"))
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work) / "model"
        tf.saved_model.save(module, str(directory), signatures={"serving_default": signature})
        batch = np.random.default_rng(0).random([1, *tensor.shape[1:]], dtype=np.float32)
        np.save(Path(work) / "inputs.npy", batch)
        command = [
            str(Path(sys.executable).with_name("saved_model_cli")),
            "run",
            f"--dir={directory}",
            "--tag_set=serve",
            "--signature_def=serving_default",
            f"--inputs=inputs={work}/inputs.npy",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        shutil.copytree(directory, sys.argv[2])


if __name__ == "__main__":
    main()
