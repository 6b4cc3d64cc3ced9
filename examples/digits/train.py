"""Trains a small CNN on scikit-learn's handwritten digits: 1,797 real scans of 8 x 8 pixels, no download.

Writes digits.keras and samples.npz (the test split, with labels) beside this file.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent


def build() -> keras.Model:
    """A CNN that takes `image` [batch, 8, 8, 1], 0 to 16 as the scans have it, and gives `probabilities`."""
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Rescaling(1 / 16)(image)
    x = keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant")(x)  # in training only
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(64, activation="relu", name="embedding")(x)
    return keras.Model(image, keras.layers.Dense(10, activation="softmax", name="probabilities")(x), name="digits")


def train() -> float:
    """Trains, saves model and samples, and returns the accuracy on the test split."""
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    model = build()
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train_x, train_y, batch_size=64, epochs=40, verbose=0)
    _, accuracy = model.evaluate(test_x, test_y, verbose=0)
    model.save(HERE / "digits.keras")
    np.savez(HERE / "samples.npz", image=test_x, label=test_y)
    return float(accuracy)


if __name__ == "__main__":
    print(f"accuracy on 360 scans it never saw: {train():.4f}")
