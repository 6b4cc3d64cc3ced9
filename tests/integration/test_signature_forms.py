"""What a package.yaml may say of signatures, seen from the Session that answers them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from model_registry.errors import InvalidInputError
from model_registry.servable import Blessing
from tests.support.candidates import Candidate, answers_of, prepare
from tests.support.models import KINDS, randomised

Package = Callable[..., Candidate]


def _photos() -> keras.Model:
    image = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    embedding = layers.GlobalAveragePooling2D(name="embedding")(layers.Conv2D(4, 3, name="conv")(x))
    probabilities = layers.Dense(3, activation="softmax", name="probabilities")(embedding)
    age = layers.Dense(1, name="age")(embedding)
    return randomised(keras.Model(image, [probabilities, age], name="zoo"))


def _ships() -> keras.Model:
    word, length = keras.Input((), dtype="string", name="word"), keras.Input((2,), dtype="int32", name="length")
    ids = layers.StringLookup(vocabulary=["boat", "hull"], output_mode="one_hot")(word)
    joined = layers.Concatenate()([ids, keras.ops.cast(length, "float32")])
    return randomised(keras.Model([word, length], layers.Dense(1, name="price")(joined), name="zoo"))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    def make(model: keras.Model, signatures: dict[str, Any] | None = None, **spec: Any) -> Candidate:
        file = tmp_path / "zoo.keras"
        model.save(file)
        form = {**({"signatures": signatures} if signatures else {}), **spec}
        candidate = prepare(file, tmp_path / "work", form)
        blessing = Blessing(candidate.validate())
        assert blessing.verdict == "blessed", blessing.failures
        return candidate

    return make


def _shown(candidate: Candidate) -> dict[str, Any]:
    """Inputs and outputs of each signature as `name: dtype shape`."""
    return {
        signature.name: tuple(
            {item.name: f"{item.dtype} {list(item.shape or ())}" for item in items}
            for items in (signature.inputs, signature.outputs)
        )
        for signature in candidate.exported.signatures
    }


def test_without_a_spec_there_is_serving_default_with_everything(package: Package) -> None:
    assert _shown(package(_photos())) == {
        "serving_default": (
            {"image": "float32 [None, None, None, 3]"},
            {"age": "float32 [None, 1]", "probabilities": "float32 [None, 3]"},
        )
    }


def test_a_list_selects_outputs(package: Package) -> None:
    candidate = package(_photos(), {"serving_default": {"inputs": ["image"], "outputs": ["age"]}})

    assert _shown(candidate)["serving_default"][1] == {"age": "float32 [None, 1]"}


def test_a_mapping_renames_casts_and_fixes_the_shape(package: Package) -> None:
    model = _photos()
    inputs = {"jpeg:0": {"from": "image", "dtype": "uint8", "shape": [None, 12, 9, 3]}}

    candidate = package(model, {"serving_default": {"inputs": inputs, "outputs": {"class": "probabilities"}}})

    assert _shown(candidate) == {
        "serving_default": ({"jpeg:0": "uint8 [None, 12, 9, 3]"}, {"class": "float32 [None, 3]"})
    }
    ((name, feed), *_) = candidate.requests()
    assert feed["jpeg:0"].dtype == np.uint8
    assert feed["jpeg:0"].max() > 200, "made up over the client's range, not the model's"
    ((answer),) = answers_of(candidate.directory, [(name, feed)])
    expected = model(feed["jpeg:0"].astype(np.float32))[0].numpy()
    np.testing.assert_allclose(answer["class"], expected, rtol=1e-4, atol=1e-5)


def test_a_fixed_batch_drops_other_sizes_and_says_so(package: Package) -> None:
    signatures = {"serving_default": {"inputs": {"image": {"shape": [4, 8, 8, 3]}}}}

    candidate = package(_photos(), signatures, batch_sizes=[1, 4, 16])

    assert candidate.exported.batch_sizes == (4,)
    assert candidate.exported.notes == ("the model takes batches of 4 only; dropped 1, 16",)


def test_an_inner_layer_is_a_signature_that_shares_the_weights(package: Package) -> None:
    model = _photos()

    candidate = package(model, {"embedding": {"layer": "embedding"}, "conv": {"layer": "conv"}})

    shown = _shown(candidate)
    assert sorted(shown) == ["conv", "embedding", "serving_default"]
    assert shown["embedding"][1] == {"embedding": "float32 [None, 4]"}
    request = candidate.requests()[0][1]
    ((answer),) = answers_of(candidate.directory, [("embedding", request)])
    inner = keras.Model(model.input, model.get_layer("embedding").output)
    np.testing.assert_allclose(answer["embedding"], inner(request["image"]).numpy(), rtol=1e-4, atol=1e-5)
    sizes = [file.stat().st_size for file in (candidate.directory / "variables").glob("*")]
    assert sum(sizes) <= 1.1 * sum(np.asarray(weight).nbytes for weight in model.weights) + 65_536


def test_classify_answers_scores_and_labels_for_examples(package: Package) -> None:
    signatures = {
        "classify": {
            "method": "classify",
            "inputs": {"image": {"shape": [None, 6, 6, 3]}},
            "scores": "probabilities",
            "classes": ["boat", "dock", "hull"],
        }
    }
    model = _photos()

    candidate = package(model, signatures)

    classify = candidate.exported.signatures[0]
    assert (classify.name, classify.method) == ("classify", "classify")
    assert _shown(candidate)["classify"] == (
        {"inputs": "string [None]"},
        {"classes": "string [None, 3]", "scores": "float32 [None, 3]"},
    )
    feed = next(feed for name, feed in candidate.requests() if name == "classify")
    ((answer),) = answers_of(candidate.directory, [("classify", feed)])
    example = tf.train.Example.FromString(feed["inputs"][0])
    image = np.array(example.features.feature["image"].float_list.value, np.float32).reshape(1, 6, 6, 3)
    np.testing.assert_allclose(answer["scores"], model(image)[0].numpy(), rtol=1e-4, atol=1e-5)
    assert answer["classes"].tolist() == [[b"boat", b"dock", b"hull"]]


def test_classify_without_labels_answers_scores_alone(package: Package) -> None:
    inputs = {"image": {"shape": [None, 6, 6, 3], "dtype": "uint8"}}

    candidate = package(_photos(), {"c": {"method": "classify", "inputs": inputs, "scores": "probabilities"}})

    assert _shown(candidate)["c"][1] == {"scores": "float32 [None, 3]"}


def test_regress_takes_strings_and_integers_as_features(package: Package) -> None:
    model = _ships()

    candidate = package(model, {"price": {"method": "regress", "outputs": "price"}})

    assert _shown(candidate)["price"] == ({"inputs": "string [None]"}, {"outputs": "float32 [None]"})
    example = tf.train.Example()
    example.features.feature["word"].bytes_list.value.append(b"hull")
    example.features.feature["length"].int64_list.value.extend([3, 4])
    feed = {"inputs": np.array([example.SerializeToString()], object)}
    ((answer),) = answers_of(candidate.directory, [("price", feed)])
    expected = model([tf.constant([b"hull"]), tf.constant([[3, 4]])]).numpy().reshape(-1)
    np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-4, atol=1e-5)


def test_sample_rows_are_what_the_records_hold(package: Package, tmp_path: Path) -> None:
    words, lengths = np.array(["boat", "hull", "fög"]), np.arange(6).reshape(3, 2)
    np.savez(tmp_path / "rows.npz", word=words, size=lengths)

    candidate = package(
        _ships(),
        {"serving_default": {"inputs": {"word": "word", "size": "length"}}},
        samples=str(tmp_path / "rows.npz"),
        batch_sizes=[2, 5],
    )

    (_, two), (_, five) = candidate.requests()
    assert two["word"].tolist() == [b"boat", b"hull"]
    assert five["word"].tolist() == [b"boat", b"hull", "fög".encode(), b"boat", b"hull"]
    assert five["size"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert (candidate.warmed.rows, candidate.warmed.synthesised) == (3, False)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"inputs": ["picture", "image"]}, "the model has no input 'picture'; it has image"),
        ({"inputs": {"image": {"dtype": "string"}}}, "string cannot be cast to float32"),
        ({"inputs": {"image": {"shape": [None, 8, 8, 4]}}}, "[None, 8, 8, 4] does not fit [None, None, None, 3]"),
        ({"outputs": ["scores"]}, "the model has no output 'scores'; it has probabilities, age"),
        ({"layer": "embeding"}, "the model has no such layer; it has image, rescaling"),
        ({"method": "classify", "scores": "probabilities"}, "a tf.Example needs a fixed shape"),
        (
            {
                "method": "classify",
                "scores": "probabilities",
                "classes": ["a"],
                "inputs": {"image": {"shape": [None, 4, 4, 3]}},
            },
            "1 labels for 3 scores",
        ),
        (
            {"method": "regress", "outputs": "probabilities", "inputs": {"image": {"shape": [None, 4, 4, 3]}}},
            "regress answers one value a row",
        ),
    ],
)
def test_what_the_model_cannot_do_is_refused(form: dict[str, Any], message: str, package: Package) -> None:
    keras.backend.clear_session()

    with pytest.raises(InvalidInputError, match=re.escape(message)):
        package(_photos(), {"asked": form})


def test_an_input_left_out_is_refused(package: Package) -> None:
    with pytest.raises(InvalidInputError, match="leaves out length: every input of the model must be fed"):
        package(_ships(), {"serving_default": {"inputs": ["word"]}})


def test_a_layer_called_twice_has_no_single_output(package: Package) -> None:
    with pytest.raises(InvalidInputError, match="the layer is called 2 times"):
        package(KINDS["shared_layers"].build(), {"tower": {"layer": "tower"}})


def test_a_subclassed_model_has_no_layer_to_cut_at(package: Package) -> None:
    with pytest.raises(InvalidInputError, match="OneArgument is subclassed"):
        package(KINDS["subclassed"].build(), {"inner": {"layer": "dense"}})


@pytest.mark.filterwarnings("ignore:Model '.*' had a build config:UserWarning")
def test_a_subclassed_model_that_records_too_little_asks_for_its_inputs(package: Package) -> None:
    with pytest.raises(InvalidInputError, match="TwoArguments cannot be called with left: float32") as caught:
        package(KINDS["subclassed_with_two_arguments"].build())

    assert "declare its inputs" in str(caught.value.hint)


def test_a_sparse_input_is_refused(package: Package) -> None:
    x = keras.Input((4,), name="x", sparse=True)

    with pytest.raises(InvalidInputError, match="input 'x' is sparse: a signature takes dense tensors"):
        package(keras.Model(x, layers.Dense(2)(x)))


def test_a_layer_of_a_sequential_model_is_a_signature(package: Package) -> None:
    model = KINDS["sequential"].build()
    name = model.layers[0].name

    candidate = package(model, {"hidden": {"layer": name}})

    assert _shown(candidate)["hidden"][1] == {name: "float32 [None, 6]"}


@keras.saving.register_keras_serializable(package="zoo")
class Sparse(layers.Layer):
    def call(self, x):
        return tf.sparse.from_dense(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype, sparse=True)


def test_a_sparse_output_is_refused(package: Package) -> None:
    x = keras.Input((4,), name="x")

    with pytest.raises(InvalidInputError, match="output 'bag' is a SparseTensor"):
        package(keras.Model(x, Sparse(name="bag")(x)))


def test_a_ragged_input_is_refused(package: Package) -> None:
    ids = keras.Input((None,), name="ids", dtype="int64", ragged=True)

    with pytest.raises(InvalidInputError, match="input 'ids' is ragged"):
        package(keras.Model(ids, layers.Embedding(4, 3)(ids)))


_SCALE = tf.Variable(3.0)


@keras.saving.register_keras_serializable(package="zoo")
class GlobalScale(layers.Layer):
    def call(self, x):
        return x * _SCALE


@keras.saving.register_keras_serializable(package="zoo")
class ThroughNumpy(layers.Layer):
    def call(self, x):
        return tf.constant(np.asarray(x) * 2)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (GlobalScale, "uses 1 resource.* that none of its layers owns"),
        (ThroughNumpy, "the model cannot be traced into a graph: NotImplementedError: Cannot convert"),
    ],
)
def test_a_layer_that_cannot_be_saved_says_why(layer: Any, message: str, package: Package) -> None:
    x = keras.Input((4,), name="x")

    with pytest.raises(InvalidInputError, match=message):
        package(keras.Model(x, layer()(x)))


def test_a_request_beyond_two_gigabytes_is_refused_before_it_is_made(package: Package) -> None:
    x = keras.Input((1024, 1024), name="x")

    with pytest.raises(InvalidInputError, match="more than the 2 GB that a request may have"):
        package(keras.Model(x, layers.Rescaling(2.0)(x)), batch_sizes=[1, 1000])


def test_more_records_than_a_server_reads_are_refused(package: Package) -> None:
    names = {f"s{index}": {} for index in range(100)}

    with pytest.raises(ValueError, match=r"1,?010 warm-up records; .* more than 1,?000"):
        package(KINDS["no_variables"].build(), names, batch_sizes=list(range(1, 11)))
