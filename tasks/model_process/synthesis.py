"""Inputs made up for a model that came without samples.

They stay within what the model was built for where that can be read from its layers: ids below an
Embedding's `input_dim`, strings from a lookup's vocabulary, pixels where a Rescaling expects them. The
same model gives the same values.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from model_registry.errors import InvalidInputError
from tasks.model_process.endpoints import input_names, network

# Sizes for dimensions that the model leaves free: enough for the pooling of an image network, short for a text.
_IMAGE_SIDE = 64
_STEPS = 16

# Ids and counts of an integer input nobody says anything about: small, for they are likely to be looked up.
_SMALL_IDS = 10

# What a protobuf message, and so a warm-up record, may have.
_MAX_BYTES = 1 << 31

_LOOKUPS: dict[type, tuple[Any, ...]] = {
    bytes: (keras.layers.TextVectorization, keras.layers.StringLookup),
    int: (keras.layers.IntegerLookup,),
}
_PASS_THROUGH = (
    keras.layers.Identity,
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.RepeatVector,
    keras.layers.Permute,
    keras.layers.Dropout,
    keras.layers.Resizing,
)


def synthesise(model: Any, name: str, spec: tf.TensorSpec, rows: int) -> npt.NDArray[Any]:
    """Makes up values for one of the model's inputs.

    Args:
        model: A Keras model, or the object of a loaded SavedModel, of which nothing is known.
        name: The model's name for the input.
        spec: What the client feeds; free dimensions get a size that suits the rank.
        rows: How many.

    Returns:
        Array [rows, ...] of the spec's dtype; objects of type bytes for strings.

    Raises:
        InvalidInputError: If no request could hold that many.
    """
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    rank = spec.shape.rank
    free = _IMAGE_SIDE if rank is not None and rank >= 4 else _STEPS
    shape = [rows, *(size if size is not None else free for size in (spec.shape.as_list()[1:] if rank else []))]
    if math.prod(shape) * spec.dtype.size >= _MAX_BYTES:
        raise InvalidInputError(
            f"{rows} made-up rows of input {name!r}, {shape}, are more than the 2 GB that a request may have",
            hint="list smaller batch_sizes, give the free dimensions a size in the spec, or give samples",
        )
    consumers = _consumers(model, name)
    if spec.dtype == tf.string:
        words = _vocabulary(consumers, bytes) or [b"slipway", b"launch", b"harbour", b"tide"]
        return _drawn(generator, np.array(words, dtype=object), shape)
    kind = spec.dtype.as_numpy_dtype
    if spec.dtype == tf.bool:
        return generator.integers(0, 2, shape).astype(kind)
    known, limit = _vocabulary(consumers, int), _id_limit(consumers)
    if spec.dtype.is_integer and known:
        return _drawn(generator, np.array(known, dtype=kind), shape)
    if spec.dtype.is_integer or limit:  # Embedding takes ids as floats too
        limit = limit or (256 if spec.dtype == tf.uint8 else _SMALL_IDS)
        limit = min(limit, int(spec.dtype.max) + 1)
        return generator.integers(0, limit, shape).astype(kind)
    low, high = next(filter(None, map(_range, consumers)), (0.0, 1.0))
    if not _broadcasts(np.shape(low), tuple(shape)):  # a layer further inside, which sees another shape
        low, high = np.min(low), np.max(high)
    return generator.uniform(low, high, shape).astype(kind)


def _drawn(generator: np.random.Generator, values: npt.NDArray[Any], shape: list[int]) -> npt.NDArray[Any]:
    drawn: npt.NDArray[Any] = values[generator.integers(0, len(values), shape)]
    return drawn


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _consumers(model: Any, name: str) -> list[Any]:
    """The layers that may limit what comes in by an input, the nearest first, each with those inside it."""
    if not isinstance(model, keras.Model):
        return []
    graph = network(model)
    if graph is None:  # which of its layers an input meets, a subclassed model does not tell
        return list(model._flatten_layers(include_self=False))
    tensors = dict(zip(input_names(graph), keras.tree.flatten(graph.input), strict=True))
    return list(_reached(graph, tensors[name])) if name in tensors else []


def _reached(graph: keras.Model, tensor: Any) -> Iterator[Any]:
    for operation in graph.operations:
        for node in operation._inbound_nodes:
            positions = [index for index, item in enumerate(node.input_tensors) if item is tensor]
            if not positions:
                continue
            if isinstance(operation, _PASS_THROUGH):
                yield from _reached(graph, node.output_tensors[0])
            elif isinstance(operation, keras.Model) and (inner := network(operation)) is not None:
                yield from _reached(inner, keras.tree.flatten(inner.input)[positions[0]])
            elif isinstance(operation, keras.Layer):
                yield from operation._flatten_layers()


def _vocabulary(layers: Iterable[Any], kind: type[bytes] | type[int]) -> list[Any]:
    """What the first lookup of bytes or of integers knows."""
    for layer in layers:
        if isinstance(layer, _LOOKUPS[kind]) and not getattr(layer, "invert", False):
            words: list[Any] = layer.get_vocabulary(include_special_tokens=False)
            return [str(word).encode() if kind is bytes else int(word) for word in words]
    return []


def _id_limit(layers: Iterable[Any]) -> int | None:
    """The ids that all of the layers know are below this."""
    limits: list[int] = []
    for layer in layers:
        if isinstance(layer, keras.layers.Embedding):
            limits.append(int(layer.input_dim))
        elif isinstance(layer, keras.layers.CategoryEncoding):
            limits.append(int(layer.num_tokens))
        elif isinstance(layer, (keras.layers.StringLookup, keras.layers.IntegerLookup)) and layer.invert:
            limits.append(int(layer.vocabulary_size()))
    return min(limits, default=None)


def _range(layer: Any) -> tuple[Any, Any] | None:
    if isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.scale) == 0 and np.ndim(layer.offset) == 0:
        return (0.0, (1.0 - layer.offset) / layer.scale) if layer.scale else None
    if isinstance(layer, keras.layers.Normalization) and not layer.invert and layer.mean is not None:
        mean, spread = np.asarray(layer.mean), 2 * np.sqrt(np.asarray(layer.variance))
        return mean - spread, mean + spread
    if isinstance(layer, keras.layers.Discretization) and layer.bin_boundaries:
        edges = np.asarray(layer.bin_boundaries, dtype=float)
        margin = max(1.0, float(np.ptp(edges)) / 10)
        return edges.min() - margin, edges.max() + margin
    return None
