"""How the trained model is asked: eagerly wherever Python of its own could behave otherwise while traced."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.model_process import cases, signatures
from tasks.model_process.endpoints import keras_endpoint
from tasks.model_process.samples import synthesised_rows


@keras.saving.register_keras_serializable("slipway-tests")
class Watching(keras.layers.Layer):
    """Notes whether it is called eagerly."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.eager: list[bool] = []

    def call(self, inputs: Any) -> Any:
        self.eager.append(tf.executing_eagerly())
        return inputs


def answered(model: keras.Model) -> int:
    signature = signatures.trace("serving_default", None, keras_endpoint(model))
    rows = synthesised_rows(model, [signature], 8)
    return len(list(cases.reference_answers(cases.warmup_cases([signature], (1, 4, 8)), rows)))


def test_a_layer_of_the_users_own_is_asked_eagerly_each_time() -> None:
    inputs = keras.Input((3,))
    layer = Watching()
    model = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    keras_endpoint(model)
    assert answered(model) == 3
    assert layer.eager.count(True) == 3


@pytest.mark.parametrize("layer", [keras.layers.Dense(2), keras.layers.Lambda(lambda x: x * 2.0)])
def test_only_a_graph_of_keras_own_layers_is_fixed(layer: keras.layers.Layer) -> None:
    inputs = keras.Input((3,))
    endpoint = keras_endpoint(keras.Model(inputs, layer(inputs)))
    assert endpoint.fixed_graph is isinstance(layer, keras.layers.Dense)
    answer = endpoint.call({next(iter(endpoint.inputs)): tf.constant(np.ones((2, 3), np.float32))})
    assert next(iter(answer.values())).shape[0] == 2
