"""A SavedModel that would reach files or the host is refused before anything of it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from model_registry.errors import InvalidInputError
from model_registry.servable import Blessing
from tasks.model_process import loading
from tasks.model_process.inspecting import denied_ops, read_saved_model
from tests.support.candidates import answers_of, prepare

X = tf.TensorSpec([None], tf.float32, name="x")
WORD = tf.TensorSpec([None], tf.string, name="word")


class _Resource(tf.saved_model.experimental.TrackableResource):
    """A resource that does as it likes when the model is loaded."""

    def __init__(self, initialize: Callable[[Any], Any]) -> None:
        super().__init__()
        self.initialize = initialize

    def _create_resource(self):
        return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="zoo")

    def _initialize(self):
        self.initialize(self.resource_handle)


def _save(directory: Path, serve: Callable[..., Any], spec: tf.TensorSpec = X, *, resource: Any = None) -> Path:
    module = tf.Module()
    module.resource = resource
    function = tf.function(serve, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(directory), signatures={"serving_default": function})
    return directory


def _edit(directory: Path, change: Callable[[Any], None]) -> None:
    saved_model: saved_model_pb2.SavedModel = read_saved_model(directory)
    change(saved_model.meta_graphs[0])
    (directory / "saved_model.pb").write_bytes(saved_model.SerializeToString())


def _refusal(source: Path) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        loading.load(source, "saved_model")
    return caught.value


def test_a_resource_that_writes_when_it_is_initialised_writes_nothing(tmp_path: Path) -> None:
    written = tmp_path / "written"
    resource = _Resource(lambda _handle: tf.io.write_file(str(written), "by the model"))
    source = _save(tmp_path / "source", lambda x: {"y": x}, resource=resource)
    written.unlink(missing_ok=True)

    refusal = _refusal(source)

    assert "WriteFile (writes files)" in refusal.message
    assert "--trust" in str(refusal.hint)
    assert not written.exists()
    loading.load(source, "saved_model", unsafe=True)
    assert written.read_text() == "by the model", "or the test would prove nothing"


def _read_in_a_branch(x: Any) -> Any:
    read = tf.cond(tf.shape(x)[0] > 0, lambda: tf.io.read_file("/etc/hostname"), lambda: tf.constant(""))
    return {"y": tf.fill(tf.shape(x), read)}


def _python(x: Any) -> Any:
    return {"y": tf.ensure_shape(tf.numpy_function(np.negative, [x], tf.float32), [None])}


def _checkpoint(x: Any) -> Any:
    saved = tf.raw_ops.SaveV2(prefix="anywhere", tensor_names=["x"], shape_and_slices=[""], tensors=[x])
    with tf.control_dependencies([saved]):
        return {"y": tf.identity(x)}


def _restored(x: Any) -> Any:
    (read,) = tf.raw_ops.RestoreV2(prefix="anywhere", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])
    return {"y": x + read}


@pytest.mark.parametrize(
    ("serve", "op"),
    [
        (_read_in_a_branch, "ReadFile"),
        (_python, "PyFunc"),
        (_checkpoint, "SaveV2"),
        (_restored, "RestoreV2"),
    ],
)
def test_an_op_that_reaches_beyond_the_graph_is_refused(serve: Any, op: str, tmp_path: Path) -> None:
    assert f" {op} (" in _refusal(_save(tmp_path / "source", serve)).message


def _text_file_table(vocabulary: Path) -> tf.lookup.StaticHashTable:
    index = tf.lookup.TextFileIndex
    initializer = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
    )
    return tf.lookup.StaticHashTable(initializer, default_value=-1)


@pytest.fixture
def with_vocabulary(tmp_path: Path) -> Path:
    (tmp_path / "words.txt").write_text("boat\ndock\n")
    table = _text_file_table(tmp_path / "words.txt")
    source = _save(tmp_path / "source", lambda word: {"id": table.lookup(word)}, WORD, resource=table)
    (tmp_path / "words.txt").unlink()
    return source


def test_a_table_of_the_models_own_vocabulary_is_packaged(with_vocabulary: Path, tmp_path: Path) -> None:
    candidate = prepare(with_vocabulary, tmp_path / "work", source_format="saved_model")

    blessing = Blessing(candidate.validate())
    assert blessing.verdict == "blessed", blessing.failures
    request = ("serving_default", {"word": np.array([b"dock", b"fog"], object)})
    assert answers_of(candidate.directory, [request])[0]["id"].tolist() == [1, -1]


def test_a_table_of_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a\nb\n")

    def initialize(handle: Any) -> None:
        tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=handle, filename=str(tmp_path / "secret"), key_index=-2, value_index=-1
        )

    resource = _Resource(initialize)
    source = _save(tmp_path / "source", lambda x: {"y": x}, resource=resource)

    assert "InitializeTableFromTextFileV2 (reads a file that is none of the model's assets)" in _refusal(source).message


def test_a_table_whose_captured_path_is_no_asset_is_refused(with_vocabulary: Path) -> None:
    def capture_a_constant(meta_graph: Any) -> None:
        for node in meta_graph.object_graph_def.nodes:
            if node.WhichOneof("kind") == "asset":
                node.constant.operation = "Const"

    assert not denied_ops(read_saved_model(with_vocabulary))
    _edit(with_vocabulary, capture_a_constant)

    assert "InitializeTableFromTextFileV2" in _refusal(with_vocabulary).message


def test_a_table_that_a_server_would_fill_from_another_file_is_refused(with_vocabulary: Path) -> None:
    """A Session initialises from the graph, where the object graph says nothing."""

    def assign_a_constant(meta_graph: Any) -> None:
        path = meta_graph.graph_def.node.add(name="path", op="Const")
        path.attr["dtype"].type = tf.string.as_datatype_enum
        path.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/etc/hostname"))
        (assign,) = (node for node in meta_graph.graph_def.node if node.op == "AssignVariableOp")
        assign.input[1] = "path"

    _edit(with_vocabulary, assign_a_constant)

    assert "InitializeTableFromTextFileV2" in _refusal(with_vocabulary).message


def test_a_node_that_hides_behind_another_of_its_name_is_refused(with_vocabulary: Path) -> None:
    def double(meta_graph: Any) -> None:
        meta_graph.graph_def.node.add().CopyFrom(meta_graph.graph_def.node[0])

    _edit(with_vocabulary, double)

    assert "twice: expected each name once" in _refusal(with_vocabulary).message


def test_a_path_through_too_many_nodes_proves_nothing(with_vocabulary: Path) -> None:
    def lengthen(meta_graph: Any) -> None:
        graph = meta_graph.graph_def
        (assign,) = (node for node in graph.node if node.op == "AssignVariableOp")
        before = assign.input[1]
        for index in range(5000):
            before = graph.node.add(name=f"step_{index}", op="Identity", input=[before]).name
        assign.input[1] = before

    _edit(with_vocabulary, lengthen)

    assert "InitializeTableFromTextFileV2" in _refusal(with_vocabulary).message


def test_a_saver_that_writes_when_it_restores_is_refused(with_vocabulary: Path) -> None:
    def save_instead(meta_graph: Any) -> None:
        meta_graph.saver_def.restore_op_name = meta_graph.saver_def.save_tensor_name.removesuffix(":0")

    _edit(with_vocabulary, save_instead)

    assert "SaveV2 (writes checkpoints outside of the saver)" in _refusal(with_vocabulary).message


def test_an_attribute_that_names_a_file_is_refused(tmp_path: Path) -> None:
    def decode(source: str) -> Any:
        def serve(word: Any) -> Any:
            decoded = tf.io.decode_proto(word, "zoo.Boat", ["name"], [tf.string], descriptor_source=source)
            return {"sizes": decoded.sizes}

        return tf.function(serve, autograph=False).get_concrete_function(WORD).graph.as_graph_def()

    def ops(source: str) -> dict[str, str]:
        saved_model = saved_model_pb2.SavedModel()
        saved_model.meta_graphs.add().graph_def.CopyFrom(decode(source))
        return denied_ops(saved_model)

    assert ops("/etc/hostname") == {"DecodeProtoV2": "reads files"}
    assert ops("local://") == ops("") == {}


@pytest.mark.parametrize("name", ["{}/secret", "../../secret", "x/../../../secret", ""])
def test_an_asset_outside_of_the_model_is_refused(name: str, with_vocabulary: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key\n")

    def rename(meta_graph: Any) -> None:
        meta_graph.asset_file_def[0].filename = name.format(tmp_path)

    _edit(with_vocabulary, rename)

    assert "expected a file below its own assets/" in _refusal(with_vocabulary).message


def test_an_asset_of_tensorflow_1_outside_of_the_model_is_refused(with_vocabulary: Path) -> None:
    def move(meta_graph: Any) -> None:
        asset = meta_graph.asset_file_def[0]
        asset.filename = "/etc/hostname"
        meta_graph.collection_def["saved_model_assets"].any_list.value.add().Pack(asset)
        meta_graph.ClearField("asset_file_def")

    _edit(with_vocabulary, move)

    assert "'/etc/hostname', which is no relative path" in _refusal(with_vocabulary).message


def test_an_asset_that_is_a_link_is_refused(with_vocabulary: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key\n")
    (with_vocabulary / "assets/words.txt").unlink()
    (with_vocabulary / "assets/words.txt").symlink_to(tmp_path / "secret")

    assert "is reached by a symbolic link" in _refusal(with_vocabulary).message


def test_an_asset_that_is_not_listed_is_refused(with_vocabulary: Path) -> None:
    def refer_to_another(meta_graph: Any) -> None:
        for node in meta_graph.object_graph_def.nodes:
            if node.WhichOneof("kind") == "asset":
                node.asset.asset_file_def_index = -1

    _edit(with_vocabulary, refer_to_another)

    assert "refers to asset -1 of 1" in _refusal(with_vocabulary).message
