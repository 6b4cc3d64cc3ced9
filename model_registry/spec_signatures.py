"""The signatures of a package.yaml: several ways to write one, and a single form for whoever reads it.

People write a list of names, a mapping of names, or a mapping of mappings. All become tuples of
`InputSpec` and `OutputSpec`; a dump writes the last of these ways, which reads back to an equal value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    ValidationInfo,
    model_validator,
)
from pydantic_core import core_schema

from model_registry.servable import Method
from model_registry.spec_errors import expected, found, refused
from model_registry.spec_paths import folder_in, is_unprintable, read_labels

DType = Literal[
    "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool", "string",
]  # fmt: skip

MAX_LABELS = 1_000_000
_MAX_RANK = 254  # TensorFlow's own limit (core/framework/tensor_shape.h, MaxDimensions)


class Form(BaseModel):
    """What every part of a package.yaml has in common: nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _a_key_left_empty_is_left_out(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


def _check_name(name: str) -> str:
    if not name.strip() or len(name) > 256 or is_unprintable(name):
        raise expected("a name of 1 to 256 printable characters")
    return name


def _check_signature_name(name: str) -> str:
    _check_name(name)
    if name.startswith("__saved_model"):
        raise refused(f"{name!r} cannot name a signature: TensorFlow keeps the names beginning with '__saved_model'")
    return name


def _check_sizes(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if len(shape) > _MAX_RANK:
        raise expected(f"at most {_MAX_RANK} dimensions")
    if math.prod(size for size in shape if size) >= 2**63:
        raise expected("a shape of fewer than 2^63 elements")
    return shape


Name = Annotated[str, AfterValidator(_check_name)]
SignatureName = Annotated[str, AfterValidator(_check_signature_name)]
Dimension = Annotated[int, Field(gt=0)]
Shape = Annotated[tuple[Dimension | None, ...], Field(strict=False), AfterValidator(_check_sizes)]


@dataclass(frozen=True)
class InputSpec:
    """One input of a signature.

    Attributes:
        name: Its public name.
        source: The model's name for it; None for the only one there is.
        dtype: A TensorFlow dtype name; None for the model's own.
        shape: One entry a dimension, None where it is free; None for the model's own.
    """

    name: str
    source: str | None = None
    dtype: DType | None = None
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class OutputSpec:
    """One output of a signature: its public name, and the model's name for it."""

    name: str
    source: str


class _InputForm(Form):
    source: Name | None = Field(None, alias="from")
    dtype: DType | None = None
    shape: Shape | None = None


def _by_name(names: Any) -> dict[str, str]:
    for name in names:
        if not isinstance(name, str):
            raise refused(f"expected a list of names, found {found(name)} in it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refused(f"expected each name once, found {twice[0]!r} {names.count(twice[0])} times")
    return {name: name for name in names}


def _inputs_as_written(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, InputSpec) for item in value):
            return _dump_inputs(tuple(value))
        value = _by_name(value)
    if not isinstance(value, Mapping):
        raise expected("a list of names, or a mapping of public names")
    if not value:
        raise expected("at least one name")
    return {name: {"from": entry} if isinstance(entry, str) else {} if entry is None else entry
            for name, entry in value.items()}  # fmt: skip


def _inputs_as_read(forms: dict[str, _InputForm]) -> tuple[InputSpec, ...]:
    inputs = tuple(InputSpec(name, form.source, form.dtype, form.shape) for name, form in forms.items())
    sources = [entry.source for entry in inputs]
    if len(inputs) > 1 and None in sources:
        name = inputs[sources.index(None)].name
        raise refused(f"expected `from: NAME` for {name!r}: it may be left out only where there is one input")
    twice = sorted({source for source in sources if source and sources.count(source) > 1})
    if twice:
        raise refused(f"expected each input of the model once, found {twice[0]!r} under several public names")
    return inputs


def _dump_inputs(inputs: tuple[InputSpec, ...] | None) -> dict[str, Any] | None:
    if inputs is None:
        return None
    return {
        entry.name: {
            "from": entry.source,
            "dtype": entry.dtype,
            "shape": None if entry.shape is None else list(entry.shape),
        }
        for entry in inputs
    }


def _outputs_as_written(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) and info.data.get("method") == "regress":
        return {value: value}
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, OutputSpec) for item in value):
            return _dump_outputs(tuple(value))
        value = _by_name(value)
    if not isinstance(value, Mapping):
        raise expected("a list of names, or a mapping of public names to the model's names")
    if not value:
        raise expected("at least one name")
    return value


def _outputs_as_read(forms: dict[str, str]) -> tuple[OutputSpec, ...]:
    return tuple(OutputSpec(name, source) for name, source in forms.items())


def _dump_outputs(outputs: tuple[OutputSpec, ...] | None) -> dict[str, str] | None:
    return None if outputs is None else {entry.name: entry.source for entry in outputs}


def _read_as(form: Any, then: Any) -> GetPydanticSchema:
    """Validates as `form`, whose places people know, and keeps what `then` makes of it."""
    return GetPydanticSchema(
        lambda _source, handler: core_schema.no_info_after_validator_function(then, handler.generate_schema(form))
    )


Inputs = Annotated[
    tuple[InputSpec, ...], _read_as(dict[Name, _InputForm], _inputs_as_read), BeforeValidator(_inputs_as_written)
]
Outputs = Annotated[
    tuple[OutputSpec, ...], _read_as(dict[Name, Name], _outputs_as_read), BeforeValidator(_outputs_as_written)
]


def _labels_as_written(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    folder = folder_in(info.context)
    if folder is None:
        raise expected("a list of labels: a file of them is read only for a spec that is a file itself")
    return read_labels(value, folder)


def _check_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    if not 1 <= len(labels) <= MAX_LABELS:
        raise expected(f"1 to {MAX_LABELS:,} labels")
    return labels


Labels = Annotated[
    tuple[Name, ...], Field(strict=False), AfterValidator(_check_labels), BeforeValidator(_labels_as_written)
]


class SignatureSpec(Form):
    """One signature as asked for.

    Attributes:
        method: `predict`, or one of the two older methods of TensorFlow Serving.
        inputs: The inputs, or None for all of the model's own.
        outputs: The outputs, or None for all of the model's own; one for `regress`.
        layer: The inner layer whose output is the only one, under its name; for `predict`.
        scores: The model's output that holds the scores; for `classify`.
        classes: The labels, by the scores' position, read from their file already; for `classify`.
    """

    method: Method = "predict"
    inputs: Annotated[Inputs | None, PlainSerializer(_dump_inputs)] = None
    outputs: Annotated[Outputs | None, PlainSerializer(_dump_outputs)] = None
    layer: Name | None = None
    scores: Name | None = None
    classes: Labels | None = None

    @model_validator(mode="after")
    def _keys_fit_the_method(self) -> SignatureSpec:
        allowed = {"predict": ("outputs", "layer"), "classify": ("scores", "classes"), "regress": ("outputs",)}
        for key in ("outputs", "layer", "scores", "classes"):
            if getattr(self, key) is not None and key not in allowed[self.method]:
                methods = " or ".join(method for method, keys in allowed.items() if key in keys)
                raise refused(f"`{key}` goes with method {methods}, found it with method {self.method}")
        if self.layer is not None and self.outputs is not None:
            raise refused("expected `layer` or `outputs`, found both: the layer's output is the signature's only one")
        if self.method == "classify" and self.scores is None:
            raise refused("expected `scores: OUTPUT` for method classify, found no `scores`")
        if self.method == "regress" and (self.outputs is None or len(self.outputs) != 1):
            count = 0 if self.outputs is None else len(self.outputs)
            raise refused(f"expected `outputs: OUTPUT`, one name, for method regress, found {count}")
        return self
