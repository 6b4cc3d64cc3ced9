"""Warm-up records: what they hold, and that the same rows make the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from model_registry.errors import InvalidInputError
from model_registry.spec import SignatureSpec
from tasks.model_process import warmup_log
from tasks.model_process.endpoints import keras_endpoint
from tasks.model_process.samples import read_samples
from tasks.model_process.signatures import TracedSignature, trace
from tasks.model_process.synthesis import synthesise
from tests.support.models import WORDS


@pytest.fixture(scope="module")
def model() -> keras.Model:
    word, size = keras.Input((2,), dtype="string", name="word"), keras.Input((1,), dtype="uint8", name="size")
    ids = layers.StringLookup(vocabulary=WORDS, output_mode="multi_hot")(word)
    joined = layers.Concatenate()([ids, keras.ops.cast(size, "float32")])
    return keras.Model([word, size], layers.Dense(3, name="scores")(joined))


def _traced(model: keras.Model, **form: Any) -> TracedSignature:
    spec = SignatureSpec.model_validate(form) if form else None
    return trace("serving_default", spec, keras_endpoint(model))


BATCH = {"word": np.array([[b"boat", "fög".encode()]], object), "size": np.array([[200]], np.uint8)}


def test_a_predict_record_holds_typed_tensors(model: keras.Model) -> None:
    record = warmup_log.request("ships", _traced(model), BATCH)

    request = record.predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("ships", "serving_default")
    assert {name: tensor.dtype for name, tensor in request.inputs.items()} == {
        "word": tf.string.as_datatype_enum,
        "size": tf.uint8.as_datatype_enum,
    }
    name, feed = warmup_log.feed(record)
    assert (name, feed["word"].tolist(), feed["size"].tolist()) == ("serving_default", BATCH["word"].tolist(), [[200]])


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ({"method": "classify", "scores": "scores"}, "classify_log"),
    ],
)
def test_a_record_over_examples_holds_plain_features(model: keras.Model, form: dict[str, Any], kind: str) -> None:
    record = warmup_log.request("ships", _traced(model, **form), BATCH)

    assert record.WhichOneof("log_type") == kind
    (example,) = getattr(record, kind).request.input.example_list.examples
    features = example.features.feature
    assert list(features["word"].bytes_list.value) == [b"boat", "fög".encode()]
    assert list(features["size"].int64_list.value) == [200]


def test_a_file_reads_back_and_is_the_same_bytes_each_time(model: keras.Model, tmp_path: Path) -> None:
    records = [warmup_log.request("ships", _traced(model), BATCH) for _ in range(2)]

    written = [warmup_log.write_log(tmp_path / name / "log", records) for name in ("one", "other")]

    assert written == [2, 2]
    assert list(warmup_log.read_log(tmp_path / "one/log")) == records
    assert (tmp_path / "one/log").read_bytes() == (tmp_path / "other/log").read_bytes()


def test_a_thousand_records_are_what_a_server_reads() -> None:
    warmup_log.check_record_count(10, 100)

    with pytest.raises(InvalidInputError, match="11 signatures at 91 batch sizes make 1001 warm-up records"):
        warmup_log.check_record_count(11, 91)


def test_a_samples_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "rows.npz", x=np.zeros((1 << 12, 64), np.float64))

    assert read_samples(tmp_path / "rows.npz")["x"].shape == (1 << 12, 64)
    with pytest.raises(InvalidInputError, match=r"samples rows\.npz: the arrays unpack to .* more than the 1,048,576"):
        read_samples(tmp_path / "rows.npz", 1 << 20)


def _made_up(layer: Any, dtype: str, shape: tuple[int | None, ...] = (4,)) -> Any:
    x = keras.Input(shape, dtype=dtype, name="x")
    model = keras.Model(x, layer(x))
    return synthesise(model, "x", tf.TensorSpec((None, *shape), dtype), 64)


def test_strings_come_from_the_vocabulary() -> None:
    values = _made_up(layers.StringLookup(vocabulary=WORDS), "string")

    assert values.dtype == object
    assert set(values.ravel()) == {word.encode() for word in WORDS}


def test_integers_come_from_the_vocabulary() -> None:
    assert set(_made_up(layers.IntegerLookup(vocabulary=[3, -7, 90]), "int64").ravel()) == {3, -7, 90}


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_ids_are_those_an_embedding_has(dtype: str) -> None:
    values = _made_up(layers.Embedding(5, 2), dtype)

    assert values.dtype == dtype
    assert set(values.ravel()) == {0, 1, 2, 3, 4}


def test_pixels_are_what_a_rescaling_expects() -> None:
    values = _made_up(layers.Rescaling(1 / 127.5, offset=-1), "float32", (None, None, 3))

    assert values.shape == (64, 64, 64, 3)
    assert (values.min(), values.max()) == pytest.approx((0, 255), abs=1)


def test_bytes_without_more_are_pixels() -> None:
    values = _made_up(layers.Flatten(), "uint8", (50,))

    assert (values.dtype, values.min(), values.max()) == (np.uint8, 0, 255)


def test_numbers_follow_what_a_normalization_learnt() -> None:
    normalization = layers.Normalization(mean=[10.0, -500.0], variance=[4.0, 100.0])

    values = _made_up(normalization, "float32", (2,))

    assert np.all((values >= [6, -520]) & (values <= [14, -480]))
    assert np.all(values.std(axis=0) > [1, 5])


def test_numbers_reach_all_buckets_of_a_discretization() -> None:
    values = _made_up(layers.Discretization([18.0, 30.0, 65.0]), "float32", (50,))

    assert set(np.digitize(values.ravel(), [18, 30, 65])) == {0, 1, 2, 3}


def test_booleans_are_both() -> None:
    assert set(_made_up(layers.Flatten(), "bool").ravel()) == {True, False}


def test_the_same_input_gets_the_same_values_and_another_gets_others() -> None:
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    model = keras.Model([x, y], layers.Add()([x, y]))
    spec = tf.TensorSpec((None, 4), tf.float32)

    first, again, other = (synthesise(model, name, spec, 8) for name in ("x", "x", "y"))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
