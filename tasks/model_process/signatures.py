"""From an endpoint and the spec to functions that can be saved as SignatureDefs.

What TensorFlow Serving asks of each method is in its tensorflow_serving/servables/tensorflow
(classifier.cc, regressor.cc): serialized tf.Example under `inputs`; `classes` and `scores` as
[batch, n]; `outputs` as [batch].
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from model_registry.errors import InvalidInputError
from model_registry.servable import Method
from model_registry.spec import InputSpec, SignatureSpec
from tasks.model_process.endpoints import Endpoint
from tasks.model_process.error_lines import reason

# Names tf.function takes as they are. Others (`class`, `image:0`) get an alias while tracing, and their
# own name in the SignatureDef afterwards.
_ARGUMENT = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class SignatureInput:
    """One of the model's inputs, as a signature shows it.

    Attributes:
        source: The model's name for it.
        spec: Shape and dtype as the client sees them.
        model_dtype: What the model takes; the signature casts.
    """

    source: str
    spec: tf.TensorSpec
    model_dtype: tf.DType


@dataclass(frozen=True)
class TracedSignature:
    """A signature ready to be saved, and what is needed to call the model beside it.

    Attributes:
        name: Key of the SignatureDef.
        method: Which API of TensorFlow Serving answers with it.
        endpoint: What it calls.
        inputs: By public name; for classify and regress the features of the tf.Example.
        outputs: The endpoint's output behind each numeric output, by public name.
        function: The concrete function with the signature's own inputs and outputs.
        arguments: The public name of each argument of `function`.
        classes: The labels that `classify` answers beside the scores; empty without.
    """

    name: str
    method: Method
    endpoint: Endpoint
    inputs: dict[str, SignatureInput]
    outputs: dict[str, str]
    function: Any
    arguments: dict[str, str]
    classes: tuple[str, ...] = ()

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size it takes, or None when any will do."""
        sizes = {item.spec.shape[0] for item in self.inputs.values() if item.spec.shape.rank}
        return next((size for size in sizes if size is not None), None)


def trace(name: str, spec: SignatureSpec | None, endpoint: Endpoint) -> TracedSignature:
    """Traces one signature.

    Args:
        name: Key of the SignatureDef, for messages too.
        spec: What package.yaml says of it; None for all of the endpoint's inputs and outputs.
        endpoint: What it calls.

    Raises:
        InvalidInputError: If the spec names what the model lacks, or asks for an impossible cast.
    """
    inputs = _inputs(name, spec, endpoint)
    if spec is None or spec.method == "predict":
        outputs = _outputs(name, spec, endpoint)
        arguments = _aliases(inputs)

        def predict(**values: Any) -> dict[str, Any]:
            by_public_name = {arguments[alias]: value for alias, value in values.items()}
            results = endpoint.call(to_model(inputs, by_public_name))
            return {public: tf.identity(_dense(name, source, results[source])) for public, source in outputs.items()}

        specs = {alias: inputs[public].spec for alias, public in arguments.items()}
        function = _concrete(name, predict, specs)
        return TracedSignature(name, "predict", endpoint, inputs, outputs, function, arguments)

    source = spec.scores if spec.method == "classify" else spec.outputs[0].source if spec.outputs else None
    _require_output(name, source or "", endpoint)
    outputs = {"scores" if spec.method == "classify" else "outputs": str(source)}
    parse = _example_parser(name, inputs)
    labels = tf.constant(spec.classes) if spec.classes else None

    def on_examples(inputs_: Any) -> dict[str, Any]:
        value = endpoint.call(to_model(inputs, parse(inputs_)))[str(source)]
        if spec.method == "regress":
            _check_values(name, str(source), value.shape)
            return {"outputs": tf.cast(tf.reshape(value, [-1]), tf.float32)}
        _check_scores(name, spec, value.shape)
        scores = tf.cast(value, tf.float32)
        if labels is None:
            return {"scores": scores}
        return {"scores": scores, "classes": tf.tile(labels[tf.newaxis, :], [tf.shape(scores)[0], 1])}

    batch = next((item.spec.shape[0] for item in inputs.values()), None)
    function = _concrete(name, on_examples, {"inputs_": tf.TensorSpec([batch], tf.string)})
    arguments = {"inputs_": tf.saved_model.CLASSIFY_INPUTS}
    return TracedSignature(name, spec.method, endpoint, inputs, outputs, function, arguments, spec.classes or ())


def _dense(name: str, source: str, value: Any) -> Any:
    if isinstance(value, (tf.SparseTensor, tf.RaggedTensor)):
        raise InvalidInputError(
            f"signatures.{name}: the model's output {source!r} is a {type(value).__name__}, and a signature gives "
            "dense tensors",
            hint="list the other outputs in the signature, or make this one dense inside the model",
        )
    return value


def to_model(inputs: Mapping[str, SignatureInput], values: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments from a client's: its own names, its own dtypes."""
    return {item.source: tf.cast(values[public], item.model_dtype) for public, item in inputs.items()}


def _inputs(name: str, spec: SignatureSpec | None, endpoint: Endpoint) -> dict[str, SignatureInput]:
    if spec is None or spec.inputs is None:
        return {own: SignatureInput(own, spec_, spec_.dtype) for own, spec_ in endpoint.inputs.items()}
    result: dict[str, SignatureInput] = {}
    for item in spec.inputs:
        source = _source(name, item, endpoint)
        own = endpoint.inputs[source]
        result[item.name] = SignatureInput(source, _overridden(name, item, own), own.dtype)
    used = [item.source for item in result.values()]
    missing = [own for own in endpoint.inputs if own not in used]
    twice = [own for own in endpoint.inputs if used.count(own) > 1]
    if missing or twice:
        problem = f"leaves out {', '.join(missing)}" if missing else f"names {', '.join(twice)} twice"
        raise InvalidInputError(
            f"signatures.{name}.inputs {problem}: every input of the model must be fed exactly once; "
            f"the model has {', '.join(endpoint.inputs)}"
        )
    return result


def _source(name: str, item: InputSpec, endpoint: Endpoint) -> str:
    if item.source is None and len(endpoint.inputs) == 1:
        return next(iter(endpoint.inputs))
    source = item.source or item.name
    if source not in endpoint.inputs:
        raise InvalidInputError(
            f"signatures.{name}.inputs.{item.name}: the model has no input {source!r}; "
            f"it has {', '.join(endpoint.inputs)}"
        )
    return source


def _overridden(name: str, item: InputSpec, own: tf.TensorSpec) -> tf.TensorSpec:
    where = f"signatures.{name}.inputs.{item.name}"
    dtype = tf.as_dtype(item.dtype) if item.dtype else own.dtype
    if (dtype == tf.string) != (own.dtype == tf.string):
        raise InvalidInputError(
            f"{where}.dtype: {dtype.name} cannot be cast to {own.dtype.name}, which the model's input "
            f"{own.name!r} takes"
        )
    shape = tf.TensorShape(item.shape) if item.shape is not None else own.shape
    if not shape.is_compatible_with(own.shape):
        raise InvalidInputError(
            f"{where}.shape: {_shown(shape)} does not fit {_shown(own.shape)}, which the model's input "
            f"{own.name!r} takes"
        )
    return tf.TensorSpec(shape, dtype, name=item.name)


def _outputs(name: str, spec: SignatureSpec | None, endpoint: Endpoint) -> dict[str, str]:
    if spec is None or spec.outputs is None:
        return {own: own for own in endpoint.outputs}
    for item in spec.outputs:
        _require_output(name, item.source, endpoint)
    return {item.name: item.source for item in spec.outputs}


def _require_output(name: str, source: str, endpoint: Endpoint) -> None:
    if source not in endpoint.outputs:
        raise InvalidInputError(
            f"signatures.{name}: the model has no output {source!r}; it has {', '.join(endpoint.outputs)}"
        )


def _aliases(inputs: Mapping[str, SignatureInput]) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for index, public in enumerate(inputs):
        plain = _ARGUMENT.fullmatch(public) and not keyword.iskeyword(public) and public != "self"
        alias = public if plain else f"input_{index}"
        while alias in aliases or (not plain and alias in inputs):
            alias += "_"
        aliases[alias] = public
    return aliases


def _concrete(name: str, function: Callable[..., Any], specs: Mapping[str, tf.TensorSpec]) -> Any:
    named = {alias: tf.TensorSpec(spec.shape, spec.dtype, name=alias) for alias, spec in specs.items()}
    try:
        return tf.function(function, autograph=False).get_concrete_function(**named)
    except InvalidInputError:
        raise
    except Exception as error:  # whatever the model's code raises
        raise InvalidInputError(
            f"signatures.{name}: the model cannot be traced into a graph: {reason(error)}",
            hint="model.predict fails in the same way: use keras.ops in call(), not NumPy, and no `if` over tensors",
        ) from error


def _example_parser(name: str, inputs: Mapping[str, SignatureInput]) -> Callable[[Any], dict[str, Any]]:
    features = {}
    for public, item in inputs.items():
        shape = item.spec.shape[1:]
        if not shape.is_fully_defined():
            raise InvalidInputError(
                f"signatures.{name}: a tf.Example needs a fixed shape, and input {public!r} has "
                f"{_shown(item.spec.shape)}",
                hint=f"give it one: inputs: {{{public}: {{shape: [null, ...]}}}}",
            )
        features[public] = tf.io.FixedLenFeature(shape.as_list(), _feature_dtype(item.spec.dtype))

    def parse(serialized: Any) -> dict[str, Any]:
        parsed = tf.io.parse_example(serialized, features)
        return {public: tf.cast(parsed[public], item.spec.dtype) for public, item in inputs.items()}

    return parse


def _feature_dtype(dtype: tf.DType) -> tf.DType:
    if dtype == tf.string:
        return tf.string
    return tf.float32 if dtype.is_floating else tf.int64


def _check_values(name: str, source: str, value: tf.TensorShape) -> None:
    if value.rank not in (1, 2) or (value.rank == 2 and value[1] != 1):
        raise InvalidInputError(
            f"signatures.{name}.outputs: {source!r} has shape {_shown(value)}, expected [batch] or [batch, 1]: "
            "regress answers one value a row",
            hint="use method predict",
        )


def _check_scores(name: str, spec: SignatureSpec, scores: tf.TensorShape) -> None:
    if scores.rank != 2:
        raise InvalidInputError(
            f"signatures.{name}.scores: {spec.scores!r} has shape {_shown(scores)}, expected [batch, classes]"
        )
    if spec.classes and scores[1] is not None and scores[1] != len(spec.classes):
        raise InvalidInputError(
            f"signatures.{name}.classes: {len(spec.classes)} labels for {scores[1]} scores of {spec.scores!r}"
        )


def _shown(shape: tf.TensorShape) -> str:
    return str(shape.as_list()) if shape.rank is not None else "unknown rank"
