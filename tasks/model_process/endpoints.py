"""What a loaded model offers to be called with, whichever format it came in.

An `Endpoint` is a callable from named tensors to named tensors, with the specs of both. The Keras
endpoint calls the model with `training=False`: `model.export()` leaves RandomFlip and its kind active,
because their `call` defaults to `training=True`.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras.src.models.functional import Functional

from model_registry.errors import InvalidInputError
from model_registry.spec import InputSpec
from tasks.model_process.call_arguments import Tensors, argument_packer, built_inputs, declared_inputs
from tasks.model_process.error_lines import reason

_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_DECLARE = "declare its inputs: signatures: {serving_default: {inputs: {x: {dtype: float32, shape: [null, 8]}}}}"


@dataclass(frozen=True)
class Endpoint:
    """One way to call a model.

    Attributes:
        inputs: Spec of each input, by the model's own name for it.
        outputs: The model's own names of its outputs, in its order.
        call: Takes a dict with every input, returns a dict with every output.
        fixed_graph: Whether it is a graph of Keras' own layers, so that tracing it can change nothing.
    """

    inputs: dict[str, tf.TensorSpec]
    outputs: tuple[str, ...]
    call: Callable[[Tensors], dict[str, Any]]
    fixed_graph: bool = False


def unique(names: Iterable[str]) -> list[str]:
    """The names, the second and later of equals with `_1`, `_2` behind: a shared layer gives one name twice."""
    result: list[str] = []
    for name in names:
        candidate, count = name, 0
        while candidate in result:
            count += 1
            candidate = f"{name}_{count}"
        result.append(candidate)
    return result


def network(model: keras.Model) -> keras.Model | None:
    """The functional model behind a functional or Sequential one; None for a subclassed model."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    return graph if isinstance(graph, Functional) else None


def input_names(model: keras.Model) -> list[str]:
    """The names of a functional model's inputs, in the order in which Keras flattens them."""
    structure = model.input
    if isinstance(structure, dict):
        return _paths(structure)
    return unique(tensor.name for tensor in keras.tree.flatten(structure))


def keras_endpoint(
    model: keras.Model, *, layer: str | None = None, declared: Sequence[Sequence[InputSpec]] = ()
) -> Endpoint:
    """The model's own call, or that of an inner layer.

    Args:
        model: A built Keras model.
        layer: Whose output to give instead of the model's.
        declared: Inputs that the spec declares, the nearest first; a subclassed model has none of its own.

    Raises:
        InvalidInputError: If the inputs cannot be told, or the layer is not there.
    """
    graph = network(model)
    if layer is not None:
        cut = _up_to_layer(model, graph, layer)
        return _functional_endpoint(cut, (layer,), any_batch=_batch_is_accidental(model, cut))
    if graph is not None:
        return _functional_endpoint(graph, None, any_batch=_batch_is_accidental(model, graph))
    return _subclassed_endpoint(model, declared)


def saved_model_endpoint(function: Any, definition: Any) -> Endpoint:
    """The endpoint of one signature of a SavedModel.

    Args:
        function: What `tf.saved_model.load` made of the signature.
        definition: Its SignatureDef, which alone knows names that are no Python identifiers.
    """
    _, keywords = function.structured_input_signature
    arguments = signature_arguments(function, definition)
    inputs = {
        name: tf.TensorSpec(keywords[argument].shape, keywords[argument].dtype, name=name)
        for name, argument in arguments.items()
    }
    scalars = [name for name, spec in inputs.items() if spec.shape.rank == 0]
    if scalars:
        raise InvalidInputError(
            f"the SavedModel's input {scalars[0]!r} is a scalar: expected a batch of rows as its first dimension",
            hint="save the signature with shape [None], or package the Keras model",
        )
    outputs = tuple(function.structured_outputs)

    def call(tensors: Tensors) -> dict[str, Any]:
        return dict(function(**{argument: tensors[name] for name, argument in arguments.items()}))

    return Endpoint(inputs, outputs, call)


def signature_arguments(function: Any, definition: Any) -> dict[str, str]:
    """The argument of a signature's function for each of its inputs, by the name that the SignatureDef has for it.

    Args:
        function: What `tf.saved_model.load` made of the signature.
        definition: Its SignatureDef.

    Raises:
        InvalidInputError: If the two do not belong together.
    """
    _, keywords = function.structured_input_signature
    return {name: _argument(name, info.name, keywords) for name, info in sorted(definition.inputs.items())}


def _argument(name: str, tensor_name: str, keywords: Mapping[str, Any]) -> str:
    """The function's argument for an input: of the same name, or the one its placeholder is named after."""
    if name in keywords:
        return name
    fitting = [item for item in keywords if tensor_name.removesuffix(":0").endswith(f"_{item}")]
    if not fitting:
        raise InvalidInputError(
            f"the SavedModel's input {name!r} belongs to none of its function's arguments, {', '.join(keywords)}",
            hint="save the SavedModel again, or package the Keras model it was made from",
        )
    return max(fitting, key=len)


def _batch_is_accidental(model: keras.Model, graph: keras.Model) -> bool:
    """Whether a fixed batch size is just that of the first call.

    A Sequential without an Input takes the shape it is first called with, its batch size too, as in
    `model(images[:1])`; nothing depends on it as long as no layer keeps state from batch to batch.
    """
    if not isinstance(model, keras.Sequential) or all(tensor.shape[0] is None for tensor in graph.inputs):
        return False
    if any(getattr(layer, "stateful", False) for layer in model._flatten_layers()):
        return False
    free = [keras.KerasTensor((None, *tensor.shape[1:]), tensor.dtype) for tensor in graph.inputs]
    try:
        results = keras.tree.flatten(graph(keras.tree.pack_sequence_as(graph.input, free), training=False))
    except Exception:  # noqa: BLE001 - whatever a layer says of a batch size it does not know
        return False
    return all(len(result.shape) and result.shape[0] is None for result in results)


def _functional_endpoint(model: keras.Model, names: tuple[str, ...] | None, *, any_batch: bool) -> Endpoint:
    structure = model.input
    own_names = input_names(model)
    tensors = dict(zip(own_names, keras.tree.flatten(structure), strict=True))
    for name, tensor in tensors.items():
        kind = "sparse" if tensor.sparse else "ragged" if getattr(tensor, "ragged", False) else None
        if kind is not None:
            raise InvalidInputError(
                f"the model's input {name!r} is {kind}: a signature takes dense tensors",
                hint=f"give the model a dense input and make it {kind} inside the model",
            )
    inputs = {
        name: tf.TensorSpec((None, *tensor.shape[1:]) if any_batch else tensor.shape, tensor.dtype, name=name)
        for name, tensor in tensors.items()
    }
    outputs = names or _output_names(model.output, model.output_names)

    def call(values: Tensors) -> dict[str, Any]:
        packed = keras.tree.pack_sequence_as(structure, [values[name] for name in own_names])
        with _scopes(model):
            flat = keras.tree.flatten(model(packed, training=False))
        return dict(zip(outputs, flat, strict=True))

    return Endpoint(inputs, outputs, call, fixed_graph=_is_fixed_graph(model))


@contextlib.contextmanager
def _scopes(model: keras.Model) -> Iterator[None]:
    """Lends layers a name that TensorFlow takes for a scope: in a graph it refuses `my output` and `image:0`."""
    odd = [(layer, layer.name) for layer in model._flatten_layers() if not _SCOPE.fullmatch(layer.name)]
    try:
        for layer, name in odd:
            layer.name = "layer_" + re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        yield
    finally:
        for layer, name in odd:
            layer.name = name


def _output_names(structure: Any, layer_names: Iterable[str]) -> tuple[str, ...]:
    """Keys where the model answers with a dict, the output layers' names where it does not."""
    if isinstance(structure, dict):
        return tuple(_paths(structure))
    flat = keras.tree.flatten(structure)
    names = list(layer_names)
    if len(names) != len(flat):
        names = [f"output_{index}" for index in range(len(flat))]
    return tuple(unique(names))


def _paths(structure: dict[str, Any]) -> list[str]:
    return unique("/".join(str(part) for part in path) for path, _ in keras.tree.flatten_with_path(structure))


def _is_fixed_graph(model: keras.Model) -> bool:
    """Whether no Python but Keras' own runs in a call: no custom layer, no Lambda, no subclassed model inside."""
    layers = model._flatten_layers()
    return all(_is_kerass_own(layer) for layer in layers)


def _is_kerass_own(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.layers.Lambda)


def _up_to_layer(model: keras.Model, graph: keras.Model | None, name: str) -> keras.Model:
    if graph is None:
        raise InvalidInputError(
            f"`layer: {name}` needs a functional or Sequential model, and {type(model).__name__} is subclassed: "
            "its layers are joined by code that cannot be cut",
            hint="return the inner value from the model's call() as an output of its own",
        )
    try:
        layer = model.get_layer(name)
    except ValueError:
        names = ", ".join(layer.name for layer in model.layers)
        raise InvalidInputError(f"`layer: {name}`: the model has no such layer; it has {names}") from None
    # Not layer.output: that is the first call's, which a Sequential makes anew for each layer added.
    nodes = itertools.chain.from_iterable(graph._nodes_by_depth.values())
    calls = [node for node in nodes if node.operation is layer]
    if len(calls) != 1:
        raise InvalidInputError(
            f"`layer: {name}`: the layer is called {len(calls)} times, so its output is ambiguous",
            hint="name each use by a layer of its own, such as keras.layers.Identity(name=...)",
        )
    output = calls[0].output_tensors
    if len(output) != 1:
        raise InvalidInputError(f"`layer: {name}`: the layer has several outputs; name one that has a single output")
    return keras.Model(graph.input, output[0])


def _subclassed_endpoint(model: keras.Model, declared: Sequence[Sequence[InputSpec]]) -> Endpoint:
    inputs = next(filter(None, map(declared_inputs, declared)), None) or built_inputs(model)
    if not inputs:
        raise InvalidInputError(
            f"{type(model).__name__} is a subclassed model whose inputs cannot be read from the file",
            hint=_DECLARE,
        )
    pack = argument_packer(model, list(inputs))

    def call(values: Tensors) -> dict[str, Any]:
        arguments, keywords = pack(values)
        with _scopes(model):
            result = model(*arguments, training=False, **keywords)
        flat = keras.tree.flatten(result)
        return dict(zip(_output_names(result, ()), flat, strict=True))

    # Names and number of the outputs show only when it is called: here symbolically, running nothing. What
    # Keras could not build when it loaded the file is built now.
    shapes = {name: keras.KerasTensor(spec.shape, spec.dtype.name) for name, spec in inputs.items()}
    arguments, keywords = pack(shapes)
    try:
        result = model(*arguments, training=False, **keywords)
    except Exception as error:
        shown = ", ".join(f"{name}: {spec.dtype.name} {spec.shape.as_list()}" for name, spec in inputs.items())
        raise InvalidInputError(
            f"{type(model).__name__} cannot be called with {shown}: {reason(error)}",
            hint=_DECLARE,
        ) from error
    return Endpoint(inputs, _output_names(result, ()), call)
