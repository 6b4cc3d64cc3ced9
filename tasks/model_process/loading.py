"""Loading a trained model, and telling apart why it cannot be loaded."""

from __future__ import annotations

import importlib
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import tensorflow as tf
from google.protobuf.message import DecodeError

from model_registry.errors import InvalidInputError
from model_registry.servable import SourceFormat
from tasks.model_process import inspecting
from tasks.model_process.error_lines import reason

# Ops that hold a state of their own. What TensorFlow 2 saves has its variables and tables beside the graph.
_STATE_IN_GRAPH = frozenset(
    {"Variable", "VariableV2", "HashTable", "HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2"}
)


def load(
    source: Path,
    source_format: SourceFormat,
    *,
    custom_objects: Sequence[str] = (),
    code_directory: Path | None = None,
    unsafe: bool = False,
) -> Any:
    """Loads a model for inference.

    Args:
        source: A file or, for a SavedModel, a directory.
        source_format: What it is.
        custom_objects: Modules to import first; they register what they hold with Keras.
        code_directory: Where those modules are looked for first.
        unsafe: Whether the file may bring code of its own: Python, or ops that reach files and the host.

    Returns:
        A keras.Model, or the object of a SavedModel.

    Raises:
        InvalidInputError: If the model cannot be loaded; the hint says which key would help.
    """
    known = _import_custom_objects(custom_objects, code_directory)
    if source_format == "saved_model":
        return _load_saved_model(source, unsafe=unsafe)
    try:
        model = keras.models.load_model(source, custom_objects=known, compile=False, safe_mode=not unsafe)
    except Exception as error:  # Keras raises whatever the file provokes
        raise _explained(error, source) from error
    if not isinstance(model, keras.Model):
        raise InvalidInputError(f"{source.name} holds a {type(model).__name__}, expected a keras.Model")
    if not model.built:
        raise InvalidInputError(
            f"{source.name} was saved before the model was built, so it holds no weights",
            hint="call the model once, or give it a keras.Input, before saving",
        )
    return model


def load_late_weights(model: Any, source: Path, loaded: int) -> None:
    """Loads the file's weights again when layers were built only since: what they have is made up.

    Keras cannot build every subclassed model from its file. It warns, leaves those layers without
    variables, and most of them skip their weights in silence.

    Args:
        model: What `load` gave, called by now.
        source: Its file.
        loaded: How many variables it had when `load` returned.

    Raises:
        InvalidInputError: If the file's weights do not fit the layers.
    """
    if not isinstance(model, keras.Model) or len(model.variables) == loaded:
        return
    try:
        model.load_weights(source)
    except Exception as error:  # as in load
        raise InvalidInputError(
            f"{source.name}: {type(model).__name__} was built only when it was called, and then its weights could "
            f"not be loaded: {reason(error)}",
            hint="give the model a build() method that builds every layer, or package a functional model",
        ) from error


def precision(model: Any) -> str:
    """The coarsest dtype the model computes in: `float32`, `float16` or `bfloat16`."""
    if isinstance(model, keras.Model):
        dtypes = {layer.compute_dtype for layer in model._flatten_layers()}
    else:
        types = (node.attr["T"].type for node in _nodes(model))
        dtypes = {tf.as_dtype(number).name for number in types if number}
    return next((name for name in ("bfloat16", "float16") if name in dtypes), "float32")


def _nodes(saved_model: Any) -> Iterator[Any]:
    """The nodes that a loaded SavedModel's signatures run, those of the functions they call among them."""
    for signature in saved_model.signatures.values():
        graph = signature.graph.as_graph_def()
        yield from graph.node
        for function in graph.library.function:
            yield from function.node_def


def _import_custom_objects(modules: Sequence[str], directory: Path | None) -> dict[str, Any]:
    if directory is not None and modules:
        sys.path.insert(0, str(directory))
    sys.dont_write_bytecode = True  # the folder is somebody else's, and gets no __pycache__ from us
    known: dict[str, Any] = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise InvalidInputError(
                f"custom_objects: importing {name} failed: {reason(error)}",
                hint="the module must import with TensorFlow and Keras alone, without network or credentials",
            ) from error
        # Classes that were never registered are found by their bare names, as load_model documents.
        known |= {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        }
    return known


def _load_saved_model(source: Path, *, unsafe: bool) -> Any:
    # Loading runs the initializers of tables, so the graph is looked through before.
    try:
        saved_model = inspecting.read_saved_model(source)
    except (OSError, DecodeError) as error:
        raise InvalidInputError(f"{source.name} cannot be loaded as a SavedModel: {reason(error)}") from error
    inspecting.check_assets(source, saved_model)
    denied = {} if unsafe else inspecting.denied_ops(saved_model)
    if denied:
        raise InvalidInputError(
            f"{source.name} has ops that reach beyond the model: {inspecting.shown(denied)}",
            hint="save the model without them; if you trust the file, unsafe_deserialization: true in the spec and "
            "--trust let it be loaded, and the check `ops` still refuses what is left of them in the signatures",
        )
    try:
        loaded = tf.saved_model.load(str(source))
    except Exception as error:
        raise InvalidInputError(f"{source.name} cannot be loaded as a SavedModel: {reason(error)}") from error
    if not loaded.signatures:
        raise InvalidInputError(
            f"{source.name} is a SavedModel without signatures, so nothing could be served",
            hint="save the Keras model with model.save('model.keras') and package that",
        )
    inside = sorted({node.op for node in _nodes(loaded)} & _STATE_IN_GRAPH)
    if inside:
        raise InvalidInputError(
            f"{source.name} is a SavedModel of TensorFlow 1 that keeps its state inside the graph "
            f"({', '.join(inside)}), from where it cannot be exported again",
            hint="save it with resource variables (tf.compat.v1.enable_resource_variables) and without lookup tables, "
            "or package the Keras model",
        )
    return loaded


def _explained(error: Exception, source: Path) -> InvalidInputError:
    text = str(error)
    unknown = re.search(r"[Cc]ould not locate (?:class|function) '([^']+)'|Unknown layer: '?([\w>]+)'?", text)
    if unknown:
        name = unknown.group(1) or unknown.group(2)
        module = re.search(r"Full object config: \{'module': '([\w.]+)'", text)
        shown = module.group(1) if module and module.group(1) != "builtins" else "my_layers"
        hint = f"name the module that defines it in the spec, custom_objects: [{shown}], and grant it with --trust"
        if source.suffix != ".keras":
            hint += "; if it is one of keras.ops, which an HDF5 file cannot hold, save the model as .keras"
        return InvalidInputError(f"{source.name} uses {name!r}, which is not part of Keras", hint=hint)
    if "vocabulary file outside of the model archive" in text:
        return InvalidInputError(
            f"{source.name} names a vocabulary file outside of the model, which Keras' safe mode refuses to read",
            hint="save the model again with model.save, which puts vocabularies into the file",
        )
    if "safe_mode=False" in text or "enable_unsafe_deserialization" in text:
        return InvalidInputError(
            f"{source.name} brings code of its own (a Lambda layer, or the like), which Keras' safe mode refuses",
            hint="set unsafe_deserialization: true in the spec and grant it with --trust, if you trust the file; "
            "better, replace the Lambda by a registered layer",
        )
    if "No model config found" in text:
        return InvalidInputError(
            f"{source.name} holds weights only, no model",
            hint="save the whole model with model.save('model.keras')",
        )
    if "truncated file" in text:
        return InvalidInputError(
            f"{source.name} is cut short: {reason(error)}",
            hint="copy or save the model again: the upload or the training ended early",
        )
    saved_by = _keras_version(source)
    newer = saved_by is not None and _release(saved_by) > _release(keras.__version__)
    return InvalidInputError(
        f"{source.name} cannot be loaded by Keras {keras.__version__}: {reason(error)}",
        hint=f"it was saved by Keras {saved_by}, which is newer: save it again with {keras.__version__} or an older one"
        if newer
        else None,
    )


def _keras_version(source: Path) -> str | None:
    """The version that a file says it was saved by, or None where it says none."""
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive, archive.open("metadata.json") as metadata:
                version = json.loads(metadata.read(65_536))["keras_version"]
        else:
            with h5py.File(source, "r") as file:
                version = file.attrs["keras_version"]
    except Exception:  # noqa: BLE001 - a broken file says nothing of its version, in whichever way it is broken
        return None
    return str(version) if re.fullmatch(r"[\w.]{1,40}", str(version)) else None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
