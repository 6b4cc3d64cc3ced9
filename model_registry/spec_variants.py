"""What a package.yaml says of each variant: its tolerances, and how it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, Field, TypeAdapter, ValidationError, model_serializer, model_validator

from model_registry.servable import TENSORRT_FP16
from model_registry.spec_errors import expected
from model_registry.spec_signatures import Form

Tolerance = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class NativeSpec(Form):
    """How far the export may differ from the model; None follows the model's dtype policy.

    Attributes:
        atol: Absolute tolerance.
        rtol: Relative tolerance.
    """

    atol: Tolerance | None = None
    rtol: Tolerance | None = None


_MIN_WORKSPACE, _MAX_WORKSPACE = 16 << 20, 1 << 40


def _read_size(value: object) -> object:
    """Bytes of `2GiB`; a number is one already, and what is neither is for the field to refuse."""
    if not isinstance(value, str):
        return value
    try:
        return int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError:
        raise expected("a number of bytes, or a size such as 512MiB or 2GiB") from None


class TensorRTSpec(Form):
    """How a model is converted by TF-TRT in half precision, and what the result must keep of it.

    Attributes:
        atol: Absolute tolerance between the answers of the engines and the trained model's.
        rtol: Relative tolerance.
        workspace: Bytes of GPU memory that TensorRT may use for one engine; `2GiB` in the file.
        min_coverage: The smallest share of non-Const nodes that must lie inside engines, 0 to 1.
        min_speedup: How many times as fast as native each batch size must be; None only measures it.
    """

    atol: Tolerance = 1e-2
    rtol: Tolerance = 1e-2
    workspace: Annotated[int, BeforeValidator(_read_size), Field(ge=_MIN_WORKSPACE, le=_MAX_WORKSPACE)] = 2 << 30
    min_coverage: Fraction = 0.5
    min_speedup: Annotated[float, Field(gt=0, le=1_000)] | None = None


class VariantsSpec(Form):
    """Settings of each variant.

    Attributes:
        native: Of the plain SavedModel, which is always published.
        tensorrt_fp16: Of the conversion, `tensorrt-fp16` in the file. Named there, even without settings,
            it must be delivered; None leaves that to the command line.
    """

    native: NativeSpec = NativeSpec()
    tensorrt_fp16: TensorRTSpec | None = Field(None, alias=TENSORRT_FP16)

    @model_validator(mode="before")
    @classmethod
    def _named_without_settings_has_defaults(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and TENSORRT_FP16 in data and data[TENSORRT_FP16] is None:
            return {**data, TENSORRT_FP16: {}}
        return data

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        written: dict[str, Any] = {"native": self.native}
        if self.tensorrt_fp16 is not None:
            written[TENSORRT_FP16] = self.tensorrt_fp16
        return written

    @property
    def tensorrt(self) -> TensorRTSpec:
        """The settings of a conversion, the defaults where the file names none."""
        return self.tensorrt_fp16 or TensorRTSpec()
