"""Writing a SavedModel that a TF1 Session loader, and so TensorFlow Serving, can run.

`tf.saved_model.save(keras_model)` writes one that it cannot: the restore op fills other variable
handles than the signatures read (keras-team/keras#19274). `model.export()` writes one that it can, with
every weight twice. Here a bare module tracks just the resources that the signatures capture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.checkpoint.graph_view import ObjectGraphView
from tensorflow.python.saved_model import fingerprinting_utils

from model_registry.errors import InvalidInputError
from model_registry.servable import Method, Signature, TensorInfo
from tasks.model_process.inspecting import read_saved_model
from tasks.model_process.signatures import TracedSignature

_METHOD_NAMES: dict[Method, str] = {
    "predict": tf.saved_model.PREDICT_METHOD_NAME,
    "classify": tf.saved_model.CLASSIFY_METHOD_NAME,
    "regress": tf.saved_model.REGRESS_METHOD_NAME,
}
_OP_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*:0")
_METHODS = {name: method for method, name in _METHOD_NAMES.items()}


def export(
    model: Any, signatures: Sequence[TracedSignature], directory: Path, tracked: Mapping[str, Any] | None = None
) -> tuple[Signature, ...]:
    """Writes the SavedModel and returns its signatures as a client sees them, sorted by name.

    Args:
        model: What the signatures call: its variables and tables are looked for below it.
        signatures: Traced, at least one.
        directory: Where to write; must not exist.
        tracked: What else is to be saved, by the name of its attribute; a signature may use it without capturing it.

    Raises:
        InvalidInputError: If a signature uses a resource that nothing below the model owns.
    """
    module = tf.Module()
    for name, trackable in (tracked or {}).items():
        setattr(module, name, trackable)
    module.resources = _captured(model, [signature.function for signature in signatures])
    for index, resource in enumerate(module.resources):
        if isinstance(resource, tf.Variable) and not _OP_NAME.fullmatch(resource.name):
            # Keras names a variable after its layer, whose name may hold what TensorFlow refuses in a graph.
            resource._handle_name = f"variable_{index}:0"
    tf.saved_model.save(module, str(directory), signatures={item.name: item.function for item in signatures})
    _finish(directory, signatures)
    return read_signatures(directory)


def read_signatures(directory: Path) -> tuple[Signature, ...]:
    """The SignatureDefs of a SavedModel's `serve` MetaGraph, sorted by name."""
    return tuple(
        Signature(
            name=name,
            method=method(definition),
            inputs=_tensor_infos(definition.inputs),
            outputs=_tensor_infos(definition.outputs),
        )
        for name, definition in signature_definitions(directory).items()
    )


def signature_definitions(directory: Path) -> dict[str, Any]:
    """The SignatureDef protos themselves, sorted by name; without those that TensorFlow keeps for itself."""
    definitions = serve_meta_graph(read_saved_model(directory)).signature_def
    return {name: definitions[name] for name in sorted(definitions) if not name.startswith("__saved_model")}


def method(definition: Any) -> Method:
    """Which API of TensorFlow Serving a SignatureDef is for."""
    return _METHODS.get(definition.method_name, "predict")


def serve_meta_graph(saved_model: saved_model_pb2.SavedModel) -> Any:
    """The MetaGraph that TensorFlow Serving loads."""
    return next(graph for graph in saved_model.meta_graphs if tf.saved_model.SERVING in graph.meta_info_def.tags)


def _captured(model: Any, functions: Sequence[Any]) -> list[Any]:
    """The owners of all resources that the functions capture, each once, in a stable order."""
    wanted = {
        id(outer): outer
        for function in functions
        for outer, _ in function.graph.captures
        if outer.dtype in (tf.resource, tf.variant)
    }
    owners: list[Any] = []
    for owner in _resource_owners(model) if wanted else ():
        handle = owner.handle if isinstance(owner, tf.Variable) else owner.resource_handle
        if wanted.pop(id(handle), None) is not None:
            owners.append(owner)
        if not wanted:
            break
    if not wanted:
        return owners
    raise InvalidInputError(
        f"the model uses {len(wanted)} resource(s) that none of its layers owns, so they cannot be saved",
        hint="make every tf.Variable and lookup table an attribute of a layer, not a global or a closure",
    )


def _resource_owners(model: Any) -> Iterator[Any]:
    """Everything below the model that may own a resource; the common case first, for it is the fast one."""
    yield from (variable for variable in map(_plain, getattr(model, "variables", ())) if variable is not None)
    # Recurrent layers hold their state in attributes that neither Keras nor TensorFlow tracks.
    if isinstance(model, keras.Model):
        for layer in model._flatten_layers():
            attributes = keras.tree.flatten(list(vars(layer).values()))
            yield from (variable for variable in map(_plain, attributes) if variable is not None)
    # Lookup tables, and variables that only TensorFlow's own tracking knows.
    for node in ObjectGraphView(model).breadth_first_traversal()[0]:
        if isinstance(node, tf.Variable) or hasattr(node, "resource_handle"):
            yield node


def _plain(value: Any) -> tf.Variable | None:
    inner = value.value if isinstance(value, keras.Variable) else value
    return inner if isinstance(inner, tf.Variable) else None


def _finish(directory: Path, signatures: Sequence[TracedSignature]) -> None:
    """Gives inputs the names that tf.function would not take, and signatures their methods."""
    saved_model = read_saved_model(directory)
    definitions = serve_meta_graph(saved_model).signature_def
    changed = False
    for signature in signatures:
        definition = definitions[signature.name]
        renamed = {alias: public for alias, public in signature.arguments.items() if alias != public}
        infos = {alias: definition.inputs.pop(alias) for alias in renamed}
        for alias, info in infos.items():
            definition.inputs[renamed[alias]].CopyFrom(info)
        method_name = _METHOD_NAMES[signature.method]
        changed |= bool(renamed) or definition.method_name != method_name
        definition.method_name = method_name
    if changed:
        (directory / tf.saved_model.SAVED_MODEL_FILENAME_PB).write_bytes(saved_model.SerializeToString())
        fingerprinting_utils.write_fingerprint(str(directory))


def _tensor_infos(infos: Any) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name=name,
            dtype=tf.as_dtype(info.dtype).name,
            shape=None
            if info.tensor_shape.unknown_rank
            else tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim),
        )
        for name, info in sorted(infos.items())
    )
