"""A zoo of Keras models, one a function: every kind that packaging has to hold for.

Weights, biases and batch statistics are random, so that an output that is wrong is not zero by chance.
Each function builds the model anew, with explicit names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.support import absl_stream  # noqa: F401 - for its effect

WORDS = ["anchor", "boat", "crane", "dock", "ebb", "fog", "gale", "hull"]

# A module for custom_objects, as a user has it beside the package.yaml.
CUSTOM_LAYERS = '''
import keras


class Gate(keras.layers.Layer):
    """Not registered with Keras: found by its name."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * keras.ops.sigmoid(self.scale)


@keras.saving.register_keras_serializable(package="harbour")
class Tower(keras.Model):
    """A registered subclassed model."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, training=False):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}
'''


@dataclass(frozen=True)
class Kind:
    """A model of the zoo and what is expected of its packaging.

    Attributes:
        build: Makes it.
        inputs: The names its serving_default must have, in the order in which Keras flattens the inputs.
        outputs: Likewise.
        spec: What its package.yaml says beyond the name.
        trusted: Whether it needs the operator's grant.
        batch_sizes: Those that must be in force.
        call: How a subclassed model is called with tensors in the order of `inputs`.
    """

    build: Callable[[], keras.Model]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)
    trusted: bool = False
    batch_sizes: tuple[int, ...] = (1, 8)
    call: Callable[[keras.Model, list[Any]], Any] | None = None


KINDS: dict[str, Kind] = {}


def _kind(inputs: str, outputs: str, **rest: Any) -> Callable[[Callable[[], keras.Model]], Callable[[], keras.Model]]:
    """Enters a model into KINDS; names are separated by commas."""

    def enter(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
        KINDS[build.__name__] = Kind(build, tuple(inputs.split(",")), tuple(outputs.split(",")), **rest)
        return build

    return enter


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Moves every weight that was initialised to a constant: biases, and what BatchNormalization learns."""
    generator = np.random.default_rng(seed)
    adapted = {
        id(weight)
        for layer in model._flatten_layers()
        if isinstance(layer, layers.Normalization)
        for weight in layer.weights
    }
    for weight in model.weights:
        value = np.asarray(weight)
        if id(weight) not in adapted and value.dtype.kind == "f" and value.size and np.ptp(value) == 0:
            weight.assign(value + generator.uniform(-0.3, 0.3, value.shape).astype(value.dtype))
    return model


def _model(inputs: Any, outputs: Any, name: str = "zoo") -> keras.Model:
    return randomised(keras.Model(inputs, outputs, name=name))


# Sequential, functional, subclassed


@_kind("features", "probabilities")
def sequential() -> keras.Model:
    return randomised(
        keras.Sequential(
            [
                keras.Input((8,), name="features"),
                layers.Dense(6, activation="relu"),
                layers.BatchNormalization(),
                layers.Dropout(0.5),
                layers.Dense(3, activation="softmax", name="probabilities"),
            ]
        )
    )


@_kind("input_layer", "head")
def sequential_built_by_a_call() -> keras.Model:
    model = keras.Sequential([layers.Dense(4), layers.Dense(2, name="head")], name="zoo")
    model(np.zeros((1, 5), np.float32))
    return randomised(model)


@_kind("left,right", "sum,product")
def several_in_lists() -> keras.Model:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    outputs = [layers.Dense(3, name="sum")(left + right), layers.Dense(2, name="product")(left * right)]
    return _model([left, right], outputs)


@_kind("age,income", "risk,segment")
def several_in_dicts() -> keras.Model:
    # The inputs' own names are others: the keys are what a caller sees.
    inputs = {"income": keras.Input((2,), name="x0"), "age": keras.Input((3,), name="x1")}
    joined = layers.Concatenate()([inputs["age"], inputs["income"]])
    return _model(inputs, {"segment": layers.Dense(3)(joined), "risk": layers.Dense(1, activation="sigmoid")(joined)})


@_kind("meta/age,meta/size,pixels", "scores/a,scores/b")
def nested_dicts() -> keras.Model:
    inputs = {
        "pixels": keras.Input((4,), name="p"),
        "meta": {"size": keras.Input((1,), name="s"), "age": keras.Input((1,), name="a")},
    }
    joined = layers.Concatenate()([inputs["pixels"], inputs["meta"]["size"], inputs["meta"]["age"]])
    return _model(inputs, {"scores": {"b": layers.Dense(2)(joined), "a": layers.Dense(3)(joined)}})


@_kind("x", "y")
def a_list_of_one() -> keras.Model:
    x = keras.Input((4,), name="x")
    return _model([x], [layers.Dense(2, name="y")(x)])


@_kind("only", "answer")
def a_dict_of_one() -> keras.Model:
    x = keras.Input((4,), name="x")
    return _model({"only": x}, {"answer": layers.Dense(2, name="y")(x)})


_ODD = ("2d", "Image", "a=1;b[2]", "a/b", "class", "image:0", "inputs", "my input", "self", "ünïcode", "input_1")


@_kind(",".join(sorted(_ODD)), ",".join(sorted(_ODD)))
def odd_names_in_dicts() -> keras.Model:
    inputs = {name: keras.Input((3,), name=f"x{index}") for index, name in enumerate(sorted(_ODD))}
    return _model(inputs, {name: layers.Dense(2)(value) for name, value in inputs.items()})


_ODD_LAYERS = ("2d", "Image", "class", "image:0", "my input", "self", "training", "name", "return", "inputs_", "2d:1")


@_kind(",".join(_ODD_LAYERS), ",".join(f"{name} out" for name in _ODD_LAYERS))
def odd_names_of_layers() -> keras.Model:
    inputs = [keras.Input((3,), name=name) for name in _ODD_LAYERS]
    outputs = [layers.Dense(2, name=f"{value.name} out")(value) for value in inputs]
    return _model(inputs, outputs)


@_kind("x,y", "x,y")
def inputs_named_like_the_other_output() -> keras.Model:
    inputs = {"x": keras.Input((3,), name="x"), "y": keras.Input((4,), name="y")}
    return _model(inputs, {"y": layers.Dense(2)(inputs["x"]), "x": layers.Dense(2)(inputs["y"])})


@_kind("x", "x,y")
def an_input_passed_on_as_output() -> keras.Model:
    x = keras.Input((3,), name="x")
    return _model(x, [x, layers.Dense(2, name="y")(x)])


@_kind("left,right", "tower,tower_1,distance")
def shared_layers() -> keras.Model:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    tower = layers.Dense(3, name="tower", activation="tanh")
    a, b = tower(left), tower(right)
    return _model([left, right], [a, b, layers.Dense(1, name="distance")(layers.Subtract()([a, b]))])


@_kind("words", "topic")
def a_model_inside_a_model() -> keras.Model:
    word = keras.Input((), dtype="string", name="word")
    lookup = layers.StringLookup(vocabulary=WORDS)
    encoder = keras.Model(word, layers.Embedding(len(WORDS) + 1, 4)(lookup(word)), name="encoder")
    head = keras.Sequential([layers.Dense(5, activation="relu"), layers.BatchNormalization()], name="head")
    words = keras.Input((), dtype="string", name="words")
    return _model(words, layers.Dense(2, name="topic")(head(encoder(words))))


@_kind("x", "y")
def twins_with_variables_of_one_name() -> keras.Model:
    x = keras.Input((4,), name="x")
    twins = [keras.Sequential([layers.Dense(3, name="same")], name=name) for name in ("twin", "twin_1")]
    # Both kernels are called same/kernel; TensorFlow must not take them for one.
    return _model(x, layers.Subtract(name="y")([twin(x) for twin in twins]))


@keras.saving.register_keras_serializable(package="zoo")
class OneArgument(keras.Model):
    """Subclassed, one tensor in, one out."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense, self.norm = layers.Dense(3), layers.BatchNormalization()

    def call(self, features, training=None):
        return self.norm(self.dense(features), training=training)


@keras.saving.register_keras_serializable(package="zoo")
class TwoArguments(keras.Model):
    """Subclassed, two tensors, a dict out, no `training`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, left, right):
        return {"sum": self.dense(left + right), "difference": left - right}


@keras.saving.register_keras_serializable(package="zoo")
class DictArgument(keras.Model):
    """Subclassed, a dict in, a tuple out, layers that draw at training."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense, self.drop = layers.Dense(3), layers.Dropout(0.5)

    def call(self, inputs, training=True):
        joined = keras.ops.concatenate([inputs["a"], inputs["class"]], axis=-1)
        return self.drop(self.dense(joined), training=training), joined


@keras.saving.register_keras_serializable(package="zoo")
class ListArgument(keras.Model):
    """Subclassed, a list in."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, inputs):
        first, second = inputs
        return self.dense(first) * second


@keras.saving.register_keras_serializable(package="zoo")
class Strings(keras.Model):
    """Subclassed, strings in, a lookup table of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lookup = layers.StringLookup(vocabulary=WORDS)
        self.embedding = layers.Embedding(len(WORDS) + 1, 4)

    def call(self, words):
        return keras.ops.mean(self.embedding(self.lookup(words)), axis=1)


@_kind("features", "output_0", call=lambda model, values: model(values[0], training=False))
def subclassed() -> keras.Model:
    model = OneArgument()
    model(np.zeros((2, 5), np.float32))
    return randomised(model)


_VECTORS = {name: {"from": name, "dtype": "float32", "shape": [None, 5]} for name in ("left", "right")}


@_kind(
    "left,right",
    "difference,sum",
    spec={"signatures": {"serving_default": {"inputs": _VECTORS}}},
    call=lambda model, values: model(*values),
)
def subclassed_with_two_arguments() -> keras.Model:
    model = TwoArguments()
    model(np.zeros((2, 5), np.float32), np.zeros((2, 5), np.float32))
    return randomised(model)


@_kind(
    "a,class",
    "output_0,output_1",
    call=lambda model, values: model(dict(zip(("a", "class"), values, strict=True)), training=False),
)
def subclassed_with_a_dict() -> keras.Model:
    model = DictArgument()
    model({"a": np.zeros((2, 5), np.float32), "class": np.zeros((2, 2), np.float32)})
    return randomised(model)


@_kind("inputs_0,inputs_1", "output_0", call=lambda model, values: model(values))
def subclassed_with_a_list() -> keras.Model:
    model = ListArgument()
    model([np.zeros((2, 5), np.float32), np.zeros((2, 3), np.float32)])
    return randomised(model)


@_kind(
    "text",
    "output_0",
    spec={"signatures": {"serving_default": {"inputs": {"text": {"dtype": "string", "shape": [None, 3]}}}}},
    call=lambda model, values: model(values[0]),
)
def subclassed_with_declared_strings() -> keras.Model:
    model = Strings()
    model(tf.constant([["boat", "dock", "?"]]))
    return randomised(model)


@_kind("x", "gate", trusted=True, spec={"custom_objects": ["harbour_layers"]})
def custom_layer() -> keras.Model:
    import harbour_layers

    x = keras.Input((4,), name="x")
    return _model(x, harbour_layers.Gate(name="gate")(x))


@_kind(
    "x",
    "output_0",
    trusted=True,
    spec={"custom_objects": ["harbour_layers"]},
    call=lambda model, values: model(values[0]),
)
def custom_subclassed_model() -> keras.Model:
    import harbour_layers

    model = harbour_layers.Tower(3)
    model(np.zeros((2, 5), np.float32))
    return randomised(model)


@_kind("x", "double", trusted=True, spec={"unsafe_deserialization": True})
def lambda_layer() -> keras.Model:
    x = keras.Input((4,), name="x")
    return _model(x, layers.Lambda(lambda value: value * 2.0, name="double", output_shape=(4,))(x))


# Preprocessing inside the model


@_kind("text", "topic")
def text_vectorization() -> keras.Model:
    text = keras.Input((), dtype="string", name="text")
    vectorize = layers.TextVectorization(output_sequence_length=6, vocabulary=WORDS)
    ids = vectorize(text)
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(len(WORDS) + 2, 5, mask_zero=True)(ids))
    return _model(text, layers.Dense(3, activation="softmax", name="topic")(pooled))


@_kind("text", "topic")
def text_vectorization_adapted_to_tf_idf() -> keras.Model:
    text = keras.Input((1,), dtype="string", name="text")
    vectorize = layers.TextVectorization(output_mode="tf_idf", ngrams=2)
    vectorize.adapt(["anchor boat crane", "boat dock", "crane crane ebb fog"])
    return _model(text, layers.Dense(3, name="topic")(vectorize(text)))


@_kind("word,count", "embedded,label")
def string_and_integer_lookup() -> keras.Model:
    word, count = keras.Input((2,), dtype="string", name="word"), keras.Input((2,), dtype="int64", name="count")
    ids = layers.StringLookup(vocabulary=WORDS, num_oov_indices=2)(word)
    counts = layers.IntegerLookup(vocabulary=[3, 5, 8, 13], output_mode="multi_hot")(count)
    embedded = layers.Flatten()(layers.Embedding(len(WORDS) + 2, 3)(ids))
    joined = layers.Concatenate(name="embedded")([embedded, counts])
    label = layers.StringLookup(vocabulary=WORDS, invert=True, name="label")
    return _model([word, count], [joined, label(ids)])


@_kind("word,number", "bins,numbers,crossed")
def hashing() -> keras.Model:
    word, number = keras.Input((1,), dtype="string", name="word"), keras.Input((1,), dtype="int64", name="number")
    bins = layers.Hashing(num_bins=11, salt=[3, 5], name="bins")(word)
    numbers = layers.Hashing(num_bins=7, name="numbers")(number)
    crossed = layers.HashedCrossing(num_bins=13, output_mode="one_hot", name="crossed")((word, number))
    return _model([word, number], [bins, numbers, crossed])


@keras.saving.register_keras_serializable(package="zoo")
class Positions(layers.Layer):
    """A custom layer around an Embedding, as Keras' own examples have it; ids from 7 on are an error."""

    def build(self, shape: Any) -> None:
        self.table = layers.Embedding(7, 4)
        self.table.build(shape)

    def call(self, ids):
        return self.table(ids)


@_kind("ids,float_ids", "wrapped,plain")
def embeddings_of_few_ids() -> keras.Model:
    ids, float_ids = keras.Input((9,), dtype="int32", name="ids"), keras.Input((9,), name="float_ids")
    wrapped = Positions(name="wrapped")(layers.Dropout(0.2)(layers.Reshape((3, 3))(ids)))
    inner_ids = keras.Input((9,), name="inner_ids")
    inner = keras.Model(inner_ids, layers.Embedding(3, 4)(inner_ids), name="inner")
    return _model([ids, float_ids], [wrapped, layers.Flatten(name="plain")(inner(float_ids))])


@_kind("measured,age", "normal,bucket,known")
def normalization_and_discretization() -> keras.Model:
    measured, age = keras.Input((3,), name="measured"), keras.Input((1,), name="age")
    normal = layers.Normalization(name="normal")
    normal.adapt(np.random.default_rng(1).normal([5, -40, 300], [1, 9, 50], (64, 3)).astype(np.float32))
    bucket = layers.Discretization(bin_boundaries=[18.0, 30.0, 65.0], output_mode="one_hot", name="bucket")
    known = layers.Normalization(mean=40.0, variance=100.0, name="known")
    return _model([measured, age], [normal(measured), bucket(age), known(age)])


@_kind("image", "scores")
def image_preprocessing() -> keras.Model:
    image = keras.Input((None, None, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.Resizing(20, 20)(x)
    x = layers.RandomFlip()(x)
    x = layers.RandomRotation(0.3)(x)
    x = layers.RandomContrast(0.5)(x)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.BatchNormalization()(x)
    return _model(image, layers.Dense(3, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(x)))


@_kind("image", "random_flip")
def only_a_random_flip() -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 1), name="image"), layers.RandomFlip(name="random_flip")])


@_kind("pixels", "scaled")
def no_variables() -> keras.Model:
    pixels = keras.Input((4,), dtype="uint8", name="pixels")
    return _model(pixels, layers.Rescaling(1 / 255, name="scaled")(pixels))


# Recurrent and attention


@_kind("steps", "lstm,gru")
def recurrent() -> keras.Model:
    steps = keras.Input((None, 3), name="steps")
    masked = layers.Masking(0.0)(steps)
    lstm = layers.Bidirectional(layers.LSTM(4), name="lstm")(masked)
    return _model(steps, [lstm, layers.GRU(4, return_sequences=True, name="gru")(steps)])


@_kind("steps", "lstm", batch_sizes=(4,))
def stateful_lstm() -> keras.Model:
    steps = keras.Input((5, 3), batch_size=4, name="steps")
    return _model(steps, layers.LSTM(4, stateful=True, name="lstm")(steps))


@_kind("steps", "gru", batch_sizes=(4,))
def stateful_gru() -> keras.Model:
    steps = keras.Input((5, 3), batch_size=4, name="steps")
    return _model(steps, layers.GRU(4, stateful=True, name="gru")(steps))


@_kind("x", "y", batch_sizes=(3,))
def a_fixed_batch() -> keras.Model:
    x = keras.Input((4,), batch_size=3, name="x")
    return _model(x, layers.Dense(2, name="y")(x))


@_kind("ids", "next")
def transformer() -> keras.Model:
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(50, 8, mask_zero=True)(ids)
    attended = layers.MultiHeadAttention(2, 4, dropout=0.2)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    x = layers.Dense(8, activation="gelu")(x)
    return _model(ids, layers.Dense(50, activation="softmax", name="next")(x))


# Dtypes


@_kind("small,big,flag,pixel", "y,flag_out,count")
def integers_and_booleans() -> keras.Model:
    small, big = keras.Input((2,), dtype="int32", name="small"), keras.Input((2,), dtype="int64", name="big")
    flag, pixel = keras.Input((2,), dtype="bool", name="flag"), keras.Input((2,), dtype="uint8", name="pixel")
    floats = [keras.ops.cast(value, "float32") for value in (small, big, flag, pixel)]
    y = layers.Dense(3, name="y")(layers.Concatenate()(floats))
    flag_out = layers.Identity(name="flag_out")(keras.ops.logical_not(flag))
    return _model([small, big, flag, pixel], [y, flag_out, layers.Identity(name="count")(small + 1)])


def _in_policy(policy: str) -> keras.Model:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu", dtype=policy)(image)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.GlobalAveragePooling2D(dtype=policy)(x)
    half = layers.Dense(4, dtype=policy, name="half")(x)
    return _model(image, [half, layers.Dense(3, activation="softmax", dtype="float32", name="scores")(half)])


@_kind("image", "half,scores")
def mixed_float16() -> keras.Model:
    return _in_policy("mixed_float16")


@_kind("image", "half,scores")
def mixed_bfloat16() -> keras.Model:
    return _in_policy("mixed_bfloat16")


@_kind("x", "y")
def float64() -> keras.Model:
    x = keras.Input((4,), dtype="float64", name="x")
    return _model(x, layers.Dense(2, dtype="float64", name="y")(x))


@_kind("x", "y")
def bfloat16_inputs() -> keras.Model:
    x = keras.Input((4,), dtype="bfloat16", name="x")
    return _model(x, layers.Dense(2, dtype="bfloat16", name="y")(x))


# keras.applications, small


def _application(name: str, **keywords: Any) -> keras.Model:
    arguments = {"weights": None, "input_shape": (64, 64, 3), "classes": 10, "name": "zoo", **keywords}
    return randomised(getattr(keras.applications, name)(**arguments))


@_kind("input_layer", "predictions")
def mobilenet() -> keras.Model:
    model = _application("MobileNet", alpha=0.25, classifier_activation=None)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):  # or the random weights let every signal fade
            layer.moving_variance.assign(layer.moving_variance * 0.03)
    return model


@_kind("input_layer", "predictions")
def mobilenet_v2() -> keras.Model:
    return _application("MobileNetV2", alpha=0.35)


@_kind("input_layer", "predictions")
def mobilenet_v3_small() -> keras.Model:
    return _application("MobileNetV3Small", input_shape=(96, 96, 3), minimalistic=True)


@_kind("input_layer", "avg_pool")
def mobilenet_v3_without_top() -> keras.Model:
    return _application("MobileNetV3Small", input_shape=(None, None, 3), include_top=False, pooling="avg")


@_kind("input_layer", "predictions")
def efficientnet_b0() -> keras.Model:
    return _application("EfficientNetB0")


@_kind("input_layer", "predictions")
def resnet50() -> keras.Model:
    return _application("ResNet50")
