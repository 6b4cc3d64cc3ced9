"""Models that half precision suits, and models that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.support.models import randomised


def network() -> keras.Model:
    """Convolutions, and ten scores; of one engine."""
    x = image = keras.Input((16, 16, 3), name="image")
    for index, filters in enumerate((8, 16, 16)):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"block{index}")(x)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    return randomised(keras.Model(image, layers.Dense(10, activation="softmax", name="scores")(x), name="network"))


def loud_network(head: str = "softmax") -> keras.Model:
    """The layer `loud` answers with about a million, which no half holds."""
    x = image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="block")(x)
    x = layers.Conv2D(10, 3, padding="same", name="loud")(x)
    x = layers.GlobalMaxPooling2D(name="peaks")(x) if head == "sigmoid" else layers.GlobalAveragePooling2D()(x)
    model = randomised(keras.Model(image, layers.Activation(head, name="scores")(x), name="network"))
    kernel, _ = model.get_layer("loud").weights
    block, _ = model.get_layer("block").weights
    block.assign(np.full(block.shape, 0.1, np.float32))
    kernel.assign(np.full(kernel.shape, 1e4, np.float32))
    return model


def dense() -> keras.Model:
    """Four wide layers, and ten numbers that are no scores."""
    x = given = keras.Input((64,), name="x")
    for index in range(4):
        x = layers.Dense(128, activation="relu", name=f"dense{index}")(x)
    return randomised(keras.Model(given, layers.Dense(10, name="y")(x), name="dense"))


def save_loop(directory: Path, loudness: float) -> None:
    """A SavedModel whose one engine lies in the body of a loop; in between, values reach the square of `loudness`."""
    module = tf.Module()

    def body(step: Any, state: Any) -> Any:
        for index in range(4):
            state = tf.tanh(state * (1.1 + index)) + 0.1
            state = tf.sqrt(tf.square(state * loudness) + 0.5) / loudness
        return step + 1, state

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")], autograph=False)
    def run(x: Any) -> Any:
        shapes = [tf.TensorShape([]), tf.TensorShape([None, 4])]
        _, state = tf.while_loop(lambda step, _: step < 3, body, [0, x], shape_invariants=shapes)
        return {"y": state}

    module.run = run
    tf.saved_model.save(module, str(directory), signatures={"serving_default": run})
