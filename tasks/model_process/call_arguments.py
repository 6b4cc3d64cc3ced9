"""How a subclassed model is called: which inputs it has, and how they become the arguments of `call`.

Its file records the shapes it was built with, and nothing of dtypes; the spec may declare both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from model_registry.spec import InputSpec

Tensors = Mapping[str, Any]


def declared_inputs(declared: Sequence[InputSpec]) -> dict[str, tf.TensorSpec]:
    """The declared inputs, if each has a dtype and a shape: anything less does not tell how to call a model."""
    if any(item.dtype is None or item.shape is None for item in declared):
        return {}
    names = {item.source or item.name: item for item in declared}
    return {name: tf.TensorSpec(item.shape, item.dtype, name=name) for name, item in names.items()}


def built_inputs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """The shapes a subclassed model was built with, which its file records; of dtypes it records nothing."""
    shapes = model._build_shapes_dict or {}
    dtype = tf.as_dtype(model.input_dtype if isinstance(model.input_dtype, str) else keras.config.floatx())
    inputs: dict[str, tf.TensorSpec] = {}
    for argument, shape in shapes.items():
        name = argument.removesuffix("_shape")
        own = _first_argument(model) if name == "input" and len(shapes) == 1 else name
        if isinstance(shape, Mapping):
            found = dict(shape)
        elif _is_shape(shape):
            found = {own: shape}
        elif isinstance(shape, (tuple, list)):
            found = {f"{own}_{index}": item for index, item in enumerate(shape)}
        else:
            return {}
        if not all(map(_is_shape, found.values())):  # nested deeper
            return {}
        inputs |= {key: _free_batch(key, item, dtype) for key, item in sorted(found.items())}
    return inputs


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(size is None or isinstance(size, int) for size in value)


def _free_batch(name: str, shape: Iterable[int | None], dtype: tf.DType) -> tf.TensorSpec:
    # The recorded batch size is that of the last call in training, which binds nobody.
    return tf.TensorSpec([None, *list(shape)[1:]], dtype, name=name)


def _first_argument(model: keras.Model) -> str:
    return next(iter(_call_arguments(model)), "input_0")


def _call_arguments(model: keras.Model) -> list[str]:
    parameters = inspect.signature(model.call).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [item.name for item in parameters if item.kind in positional and item.name not in ("training", "mask")]


def argument_packer(
    model: keras.Model, names: list[str]
) -> Callable[[Tensors], tuple[tuple[Any, ...], dict[str, Any]]]:
    """How named tensors become the arguments of `call`: one tensor, arguments by name, one list or one dict."""
    recorded = list((model._build_shapes_dict or {}).values())
    only = recorded[0] if len(recorded) == 1 else None
    if isinstance(only, (tuple, list)) and not _is_shape(only):
        return lambda values: (([values[name] for name in names],), {})
    if not isinstance(only, Mapping):
        if len(names) == 1:
            return lambda values: ((values[names[0]],), {})
        if set(names) <= set(_call_arguments(model)):
            return lambda values: ((), {name: values[name] for name in names})
    return lambda values: (({name: values[name] for name in names},), {})
