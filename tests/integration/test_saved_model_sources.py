"""A SavedModel as the source, whoever wrote it: it comes out right in a Session, or is refused with a reason."""

from __future__ import annotations

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

# Keras and TF1 warn of their own older ways.
pytestmark = pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")


def _packaged(source: Path, work: Path, spec: dict[str, Any] | None = None) -> Candidate:
    candidate = prepare(source, work, spec, source_format="saved_model")
    blessing = Blessing(candidate.validate())
    assert blessing.verdict == "blessed", blessing.failures
    return candidate


@pytest.mark.parametrize("name", ["odd_names_in_dicts", "odd_names_of_layers", "text_vectorization", "stateful_lstm"])
def test_our_own_export_keeps_names_and_answers(name: str, tmp_path: Path) -> None:
    file = tmp_path / "zoo.keras"
    KINDS[name].build().save(file)
    first = prepare(file, tmp_path / "first")

    second = _packaged(first.directory, tmp_path / "second")

    assert second.exported.signatures == first.exported.signatures
    assert second.exported.batch_sizes == first.exported.batch_sizes
    one, other = (answers_of(item.directory, first.requests()) for item in (first, second))
    for mine, theirs in zip(other, one, strict=True):
        for key, array in theirs.items():
            np.testing.assert_array_equal(mine[key], array)


def test_a_keras_export_has_its_weights_once_afterwards(tmp_path: Path) -> None:
    x = keras.Input((64,), name="x")
    model = randomised(keras.Model(x, layers.Dense(2048, name="y")(layers.Dense(512)(x))))
    model.export(tmp_path / "source", verbose=False)

    candidate = _packaged(tmp_path / "source", tmp_path / "work")

    weights = sum(np.asarray(variable).nbytes for variable in model.variables)
    sizes = [file.stat().st_size for file in (candidate.directory / "variables").glob("*")]
    assert sum(sizes) <= 1.1 * weights + 65_536
    ((_, feed), *_) = candidate.requests()
    ((answer),) = answers_of(candidate.directory, [("serving_default", feed)])
    np.testing.assert_allclose(answer["output_0"], model(feed["x"]).numpy(), rtol=1e-4, atol=1e-5)


class _TwoSignatures(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        keys = tf.constant(["boat", "dock"])
        initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.constant([3, 5], tf.int64))
        self.table = tf.lookup.StaticHashTable(initializer, default_value=-1)
        self.scale = tf.Variable([[1.5, -2.0]])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def look_up(self, word):
        return {"id": self.table.lookup(word)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def rescale(self, x):
        return {"scaled": x * self.scale, "sum": tf.reduce_sum(x * self.scale, axis=1)}


def test_signatures_of_a_module_with_a_lookup_table_are_kept(tmp_path: Path) -> None:
    module = _TwoSignatures()
    signatures = {"look_up": module.look_up, "rescale": module.rescale}
    tf.saved_model.save(module, str(tmp_path / "source"), signatures=signatures)

    candidate = _packaged(tmp_path / "source", tmp_path / "work")

    assert [item.name for item in candidate.exported.signatures] == ["look_up", "rescale"]
    requests = [
        ("look_up", {"word": np.array([b"dock", b"fog", b"boat"], object)}),
        ("rescale", {"x": np.array([[2.0, 4.0]], np.float32)}),
    ]
    ids, scaled = answers_of(candidate.directory, requests)
    assert ids["id"].tolist() == [5, -1, 3]
    assert (scaled["scaled"].tolist(), scaled["sum"].tolist()) == ([[3.0, -8.0]], [-5.0])


def test_the_tutorial_way_which_no_server_can_run_comes_out_right(tmp_path: Path) -> None:
    model = KINDS["text_vectorization"].build()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text):
        return {"topic": model(text, training=False)}

    source = tmp_path / "source"
    tf.saved_model.save(model, str(source), signatures={"serving_default": serve})
    request = ("serving_default", {"text": np.array([b"boat dock", b"fog"], object)})
    with pytest.raises(tf.errors.FailedPreconditionError, match="Could not find variable"):
        answers_of(source, [request])

    candidate = _packaged(source, tmp_path / "work")

    ((answer),) = answers_of(candidate.directory, [request])
    expected = model(tf.constant(request[1]["text"])).numpy()
    np.testing.assert_allclose(answer["topic"], expected, rtol=1e-4, atol=1e-5)


def _save_tf1(directory: Path, *, resources: bool, table: bool) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        weights = v1.get_variable("w", initializer=[[1.0], [2.0], [-1.0]], use_resource=resources)
        y = tf.matmul(x, weights)
        if table:
            keys = tf.constant([1, 2], tf.int64)
            initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.constant([10.0, 20.0]))
            y += tf.lookup.StaticHashTable(initializer, default_value=0.5).lookup(tf.cast(y, tf.int64))
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        signature = v1.saved_model.predict_signature_def({"my x": x}, {"y": y})
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            {"serving_default": signature},
            main_op=v1.tables_initializer(),
        )
        builder.save()


def test_a_tf1_saved_model_with_resource_variables_comes_out_right(tmp_path: Path) -> None:
    _save_tf1(tmp_path / "source", resources=True, table=False)

    candidate = _packaged(tmp_path / "source", tmp_path / "work")

    request = ("serving_default", {"my x": np.array([[1, 1, 1], [0, 0, 1]], np.float32)})
    (before,), (after,) = (answers_of(item, [request]) for item in (tmp_path / "source", candidate.directory))
    assert after["y"].tolist() == before["y"].tolist()


@pytest.mark.parametrize(("resources", "op"), [(False, "VariableV2"), (True, "HashTableV2")])
def test_a_tf1_saved_model_with_its_state_in_the_graph_is_refused(resources: bool, op: str, tmp_path: Path) -> None:
    _save_tf1(tmp_path / "source", resources=resources, table=True)

    with pytest.raises(InvalidInputError, match=f"SavedModel of TensorFlow 1 that keeps its state .*{op}"):
        prepare(tmp_path / "source", tmp_path / "work", source_format="saved_model")


def test_a_layer_of_a_saved_model_is_refused(tmp_path: Path) -> None:
    module = _TwoSignatures()
    tf.saved_model.save(module, str(tmp_path / "source"), signatures={"serving_default": module.rescale})

    with pytest.raises(InvalidInputError, match="a SavedModel has no layers any more") as caught:
        prepare(
            tmp_path / "source",
            tmp_path / "work",
            {"signatures": {"embedding": {"layer": "dense"}}},
            source_format="saved_model",
        )

    assert "the .keras file it was made from" in str(caught.value.hint)


def test_a_spec_makes_signatures_from_those_of_a_saved_model(tmp_path: Path) -> None:
    module = _TwoSignatures()
    tf.saved_model.save(module, str(tmp_path / "source"), signatures={"serving_default": module.rescale})

    candidate = _packaged(
        tmp_path / "source",
        tmp_path / "work",
        {
            "signatures": {
                "serving_default": {"inputs": {"pair": {"dtype": "uint8"}}, "outputs": {"total": "sum"}},
                "classify": {"method": "classify", "scores": "scaled", "classes": ["left", "right"]},
            }
        },
    )

    classify, default = candidate.exported.signatures
    assert (classify.method, default.inputs[0].name, default.inputs[0].dtype) == ("classify", "pair", "uint8")
    request = ("serving_default", {"pair": np.array([[2, 4]], np.uint8)})
    assert answers_of(candidate.directory, [request])[0]["total"].tolist() == [-5.0]


def test_a_signature_that_takes_examples_must_be_described(tmp_path: Path) -> None:
    file = tmp_path / "zoo.keras"
    KINDS["sequential"].build().save(file)
    classify = {"classify": {"method": "classify", "scores": "probabilities", "classes": ["a", "b", "c"]}}
    source = prepare(file, tmp_path / "first", {"signatures": classify}).directory

    with pytest.raises(InvalidInputError, match=r"signatures\.classify takes serialized tf\.Examples"):
        prepare(source, tmp_path / "second", source_format="saved_model")

    described = _packaged(source, tmp_path / "third", {"signatures": classify})
    assert [item.method for item in described.exported.signatures] == ["classify", "predict"]


def test_a_saved_model_without_signatures_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "source"))

    with pytest.raises(InvalidInputError, match="a SavedModel without signatures"):
        prepare(tmp_path / "source", tmp_path / "work", source_format="saved_model")


def test_an_input_without_a_batch_is_refused(tmp_path: Path) -> None:
    double = tf.function(lambda x: {"y": x * 2}, input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    tf.saved_model.save(tf.Module(), str(tmp_path / "source"), signatures=double)

    with pytest.raises(InvalidInputError, match="input 'x' is a scalar"):
        prepare(tmp_path / "source", tmp_path / "work", source_format="saved_model")


def test_half_precision_in_a_saved_model_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "zoo.keras"
    KINDS["mixed_float16"].build().save(file)
    source = prepare(file, tmp_path / "first").directory

    assert _packaged(source, tmp_path / "second").loaded.precision == "float16"
