"""package.yaml as a value: what it may say, and its normal form.

`model_validate` takes what people write and what `model_dump(mode="json")` wrote, and makes equal values
of both; the dump goes into the manifest and to other processes. Files are found and read only for a
spec that is itself a file: model_registry.spec_file passes its folder as pydantic's context.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from model_registry.errors import InvalidInputError
from model_registry.paths import check_model_name
from model_registry.spec_errors import expected, invalid_spec, nearest, refused
from model_registry.spec_paths import folder_in, locate
from model_registry.spec_server import DOCKER, NO_SERVER, Image, Server, needs_grant
from model_registry.spec_signatures import Form, InputSpec, Name, OutputSpec, SignatureName, SignatureSpec
from model_registry.spec_variants import Fraction, NativeSpec, TensorRTSpec, Tolerance, VariantsSpec

__all__ = [
    "DEFAULT_BATCH_SIZES",
    "InputSpec",
    "NativeSpec",
    "OutputSpec",
    "PackageSpec",
    "QualitySpec",
    "SignatureSpec",
    "TensorRTSpec",
    "TimeoutsSpec",
    "Top1AgreementSpec",
    "VariantsSpec",
    "require_server_trust",
    "require_trust",
]

DEFAULT_BATCH_SIZES = (1, 8)
MAX_BATCH_SIZES = 100
MAX_BATCH_SIZE = 65_536  # a warm-up record carries that many rows of real tensors
MAX_WARMUP_RECORDS = 1_000  # TensorFlow Serving fails the load beyond (saved_model_warmup_util.h)

_LOWER_IS_BETTER = ("mean_absolute_error", "root_mean_squared_error")

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]


class QualitySpec(Form):
    """How good the packaged model must be on the samples.

    Attributes:
        labels: The array of the samples that holds the truth.
        metric: What is measured.
        at_least: The lowest accuracy that passes, 0 to 1.
        at_most: The highest error that passes.
        output: The signature's output that is compared; None for the only one.
        signature: The signature that is asked.
    """

    labels: Name
    metric: Literal["accuracy", "top5_accuracy", "mean_absolute_error", "root_mean_squared_error"]
    at_least: Fraction | None = None
    at_most: Tolerance | None = None
    output: Name | None = None
    signature: Name = "serving_default"

    @model_validator(mode="after")
    def _one_limit_that_fits_the_metric(self) -> QualitySpec:
        wanted, other = ("at_most", "at_least") if self.metric in _LOWER_IS_BETTER else ("at_least", "at_most")
        if getattr(self, other) is not None:
            raise refused(f"expected `{wanted}` for the metric {self.metric}, found `{other}`")
        if getattr(self, wanted) is None:
            raise refused(f"expected `{wanted}: NUMBER` for the metric {self.metric}, found no limit")
        return self


class Top1AgreementSpec(Form):
    """How often a variant must choose the class that the model chooses.

    Attributes:
        at_least: The lowest share of samples that passes, 0 to 1.
        min_samples: Fewer samples than this prove nothing, and are not judged.
    """

    at_least: Fraction = 0.99
    min_samples: Annotated[int, Field(ge=1)] = 100


class TimeoutsSpec(Form):
    """How long a stage may take, in seconds.

    Attributes:
        load: For loading the model.
        convert: For one conversion to TensorRT, from the moment it begins.
        validation: For validating the servable; `validate` in the file, a name that pydantic keeps for itself.
    """

    load: Seconds = 600.0
    convert: Seconds = 3600.0
    validation: Seconds = Field(900.0, alias="validate")

    @model_serializer
    def _as_written(self) -> dict[str, float]:
        return {"load": self.load, "convert": self.convert, "validate": self.validation}


def _check_modules(modules: tuple[str, ...]) -> tuple[str, ...]:
    for module in modules:
        if not all(part.isidentifier() and not keyword.iskeyword(part) for part in module.split(".")):
            raise refused(f"expected modules as `import` names them, like 'my_layers', found {module!r}")
    return tuple(dict.fromkeys(modules))


def _check_batch_sizes(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if not sizes:
        raise expected("at least one batch size")
    if len(set(sizes)) > MAX_BATCH_SIZES:
        raise refused(f"expected at most {MAX_BATCH_SIZES} batch sizes, found {len(set(sizes))}")
    return tuple(sorted(set(sizes)))


class PackageSpec(Form):
    """How one model is packaged.

    Attributes:
        model: The name it is published under.
        source: The trained model, a path or an s3:// URI; None leaves it to the command line.
        custom_objects: Modules imported before the model is loaded. Needs trust.
        unsafe_deserialization: Lets the model file carry code of its own. Needs trust.
        signatures: What it shall answer, by name; None for the model's own.
        batch_sizes: Ascending, each once; None for DEFAULT_BATCH_SIZES.
        variants: Settings of each variant.
        samples: An .npz file, a path or an s3:// URI; None synthesises them from the signatures.
        quality: A gate on the samples' truth, or None.
        top1_agreement: A gate on the classes chosen.
        server: Where the candidate is tried in TensorFlow Serving itself: `none`, `docker`, or the HOST:PORT of a
            running server, which needs trust.
        image: What `docker` runs; None for TensorFlow Serving's own. Needs trust.
        timeouts: How long a stage may take.
    """

    model: str
    source: str | None = None
    custom_objects: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_check_modules)] = ()
    unsafe_deserialization: bool = False
    signatures: dict[SignatureName, SignatureSpec] | None = None
    batch_sizes: (
        Annotated[
            tuple[Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)], ...],
            Field(strict=False),
            AfterValidator(_check_batch_sizes),
        ]
        | None
    ) = None
    variants: VariantsSpec = VariantsSpec()
    samples: str | None = None
    quality: QualitySpec | None = None
    top1_agreement: Top1AgreementSpec = Top1AgreementSpec()
    server: Server = NO_SERVER
    image: Image | None = None
    timeouts: TimeoutsSpec = TimeoutsSpec()

    @classmethod
    def parse(cls, document: object) -> PackageSpec:
        """Reads the normal form, as the manifest holds it and other processes are given it.

        Raises:
            InvalidInputError: If it is none.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise invalid_spec(error, where="the spec", schema=cls.model_json_schema()) from None

    @classmethod
    def default(cls, model: str, source: str | None = None) -> PackageSpec:
        """The spec of a model that has none: everything read from the model itself.

        Raises:
            InvalidInputError: If no model may bear the name, or the source is neither a path nor an s3:// URI.
        """
        return cls(model=check_model_name(model), source=None if source is None else locate(source, None))

    _model_name = field_validator("model")(check_model_name)

    @field_validator("source", "samples")
    @classmethod
    def _locate(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if info.field_name == "samples" and not value.endswith(".npz"):
            raise expected("an .npz file, as numpy.savez writes it")
        return locate(value, folder_in(info.context))

    @field_validator("signatures")
    @classmethod
    def _some_signature(cls, value: dict[str, SignatureSpec] | None) -> dict[str, SignatureSpec] | None:
        if value is not None and not value:
            raise expected("at least one signature, or none of this key for the model's own")
        return value

    @field_validator("signatures", mode="before")
    @classmethod
    def _a_signature_left_empty_has_defaults(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: {} if form is None else form for name, form in value.items()}

    @field_validator("batch_sizes")
    @classmethod
    def _few_enough_records(cls, value: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        signatures = len(info.data.get("signatures") or ()) or 1
        records = signatures * len(value or DEFAULT_BATCH_SIZES)
        if records > MAX_WARMUP_RECORDS:
            raise refused(
                f"expected at most {MAX_WARMUP_RECORDS:,} warm-up records, which is what TensorFlow Serving takes, "
                f"found {records:,}: {signatures} signatures times {len(value or DEFAULT_BATCH_SIZES)} batch sizes"
            )
        return value

    @field_validator("quality")
    @classmethod
    def _quality_has_what_it_needs(cls, value: QualitySpec | None, info: ValidationInfo) -> QualitySpec | None:
        if value is None:
            return None
        if "samples" in info.data and info.data["samples"] is None:
            raise refused("expected `samples: FILE.npz` beside it, found no `samples`: quality is measured on them")
        # serving_default is there whether the spec redefines it or not; a SavedModel may bring others.
        names = sorted({"serving_default", *(info.data.get("signatures") or ())})
        if info.data.get("signatures") and value.signature not in names:
            raise refused(
                f"expected `signature` to name one of the signatures, {', '.join(names)}, "
                f"found {value.signature!r}{nearest(value.signature, names)}"
            )
        return value

    @field_validator("image")
    @classmethod
    def _image_has_an_engine(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("server", DOCKER) != DOCKER:
            raise refused(
                f"expected `server: docker` beside it, found `server: {info.data['server']}`: it is what runs it"
            )
        return value


def require_trust(spec: PackageSpec, trusted: bool) -> None:
    """Refuses a spec that lets a model run code or names a server to be used, unless the operator granted it.

    Raises:
        InvalidInputError: If the spec asks for `unsafe_deserialization`, `custom_objects`, an `image` or a running
            server without a grant.
    """
    require_server_trust(spec, trusted)
    asked = [key for key in ("unsafe_deserialization", "custom_objects") if getattr(spec, key)]
    if asked and not trusted:
        raise InvalidInputError(
            f"the spec of {spec.model!r} asks for {' and '.join(f'`{key}`' for key in asked)}, which runs code of the "
            "model's author on this machine: expected the operator's grant, found none",
            hint="if you trust where the model comes from, grant it with --trust, or with the deployment's parameter "
            "`trust: true`",
        )


def require_server_trust(spec: PackageSpec, trusted: bool) -> None:
    """Refuses a spec whose choice of a server reaches beyond the model, unless the operator granted it.

    Raises:
        InvalidInputError: If the spec names an `image`, or the HOST:PORT of a running server, without a grant.
    """
    asked = needs_grant(spec.server, spec.image)
    if asked and not trusted:
        what = "runs that image on this machine" if spec.image else "replaces the whole config of that server"
        raise InvalidInputError(
            f"the spec of {spec.model!r} asks for `{asked}`, which {what}: expected the operator's grant, found none",
            hint="if you trust who wrote the spec, grant it with --trust, or with the deployment's parameter "
            "`trust: true`",
        )
