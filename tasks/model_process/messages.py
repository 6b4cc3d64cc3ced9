"""What parent and child say to each other: one JSON document a line, both ways.

The child ran somebody's model, so what it says is checked like any other input before it is believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from model_registry.servable import Check, Signature, SourceFormat

PREPARE: Final = "prepare"
VALIDATE: Final = "validate"
PREDICT: Final = "predict"
SURVEY: Final = "survey"
PREFLIGHT: Final = "preflight"
CONVERT: Final = "convert"
ESTIMATE: Final = "estimate"
TIME: Final = "time"
INSPECT: Final = "inspect"
ANSWER: Final = "answer"
REPLAY: Final = "replay"
Role = Literal[
    "prepare",
    "validate",
    "predict",
    "survey",
    "preflight",
    "convert",
    "estimate",
    "time",
    "inspect",
    "answer",
    "replay",
]


@dataclass(frozen=True)
class PreparePlan:
    """What the model process is to do. Paths are absolute.

    Attributes:
        source: The trained model.
        source_format: What it is.
        spec: The normal form of the package.yaml in force.
        trusted: Whether the operator lets the model bring code.
        code_directory: Where custom_objects are looked for first, or None.
        samples: The .npz file, or None.
        candidate: Where to write the SavedModel.
        cases: Where to write requests and reference answers for the validator.
    """

    source: str
    source_format: SourceFormat
    spec: dict[str, Any]
    trusted: bool
    code_directory: str | None
    samples: str | None
    candidate: str
    cases: str


@dataclass(frozen=True)
class LoadedModel:
    """The first stage's result.

    Attributes:
        kind: `Sequential`, `Functional`, the class of a subclassed model, or `SavedModel`.
        parameters: Number of weights.
        precision: Coarsest dtype it computes in.
    """

    kind: str
    parameters: int
    precision: Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class ExportedModel:
    """The second stage's result.

    Attributes:
        signatures: As read back from the SavedModel.
        batch_sizes: Those in force.
        notes: What a person should know, such as batch sizes that were dropped.
    """

    signatures: tuple[Signature, ...]
    batch_sizes: tuple[int, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WarmedModel:
    """The third stage's result.

    Attributes:
        records: Number of warm-up records.
        rows: Number of rows of the samples, given or made up.
        synthesised: Whether they were made up.
    """

    records: int
    rows: int
    synthesised: bool


@dataclass(frozen=True)
class ReferenceAnswers:
    """The fourth stage's result: how many cases the trained model answered."""

    cases: int


@dataclass(frozen=True)
class Tolerance:
    """Parity holds where |candidate - model| <= atol + rtol * |model|, as numpy.allclose has it."""

    atol: float
    rtol: float


@dataclass(frozen=True)
class ValidatePlan:
    """What the validator is to do. Paths are absolute.

    Attributes:
        candidate: The SavedModel.
        cases: Where the model process put its requests and answers.
        signatures: What the candidate must have.
        records: How many warm-up records it must have.
        rows: How many of the rows are no repetition.
        tolerance: For parity.
        spec: The normal form of the package.yaml in force: quality, top1_agreement.
        samples: The .npz file with the labels, or None.
        variant: Which variant the checks belong to.
        batching: What its batching parameters must say; None if it must have none.
    """

    candidate: str
    cases: str
    signatures: tuple[Signature, ...]
    records: int
    rows: int
    tolerance: Tolerance
    spec: dict[str, Any]
    samples: str | None
    variant: str
    batching: str | None


@dataclass(frozen=True)
class AnswersReady:
    """Tells the validator that the trained model's answers are complete."""

    cases: int


@dataclass(frozen=True)
class ValidatedCandidate:
    """The validator's result."""

    checks: tuple[Check, ...]


@dataclass(frozen=True)
class PredictPlan:
    """What a published SavedModel is to answer. Paths are absolute.

    Attributes:
        saved_model: Its directory.
        signature: Which signature is asked.
        inputs: The request, in a file of `arrays`: by input name, or by feature name for a signature
            that takes tf.Example. None for the version's own first warm-up record.
        answers: Where to write the outputs by name, in the same form.
    """

    saved_model: str
    signature: Signature
    inputs: str | None
    answers: str


@dataclass(frozen=True)
class Answered:
    """The result of a prediction: its outputs lie in the file of the plan.

    Attributes:
        rows: How many rows the request had; 1 for one without a batch dimension.
    """

    rows: int


@dataclass(frozen=True)
class Hardware:
    """What TensorFlow finds to run on.

    Attributes:
        gpus: A line for each GPU, such as `NVIDIA A100-SXM4-40GB, compute capability 8.0`.
        trt_build: Whether this TensorFlow was built with TF-TRT.
        trt_library: The TensorRT library that build wants to load, such as `libnvinfer.so.8.6.1`; empty
            without TF-TRT.
        trt_failure: Why it cannot be loaded; empty if it can.
    """

    gpus: tuple[str, ...]
    trt_build: bool
    trt_library: str
    trt_failure: str


@dataclass(frozen=True)
class Failure:
    """An expected failure in a child.

    Attributes:
        message: See SlipwayError.
        hint: See SlipwayError.
    """

    message: str
    hint: str | None = None


@dataclass(frozen=True)
class Event:
    """What a child reports: a stage that is done, or why it gave up.

    Attributes:
        stage: Which stage.
        seconds: How long it took.
        result: The stage's result as JSON.
        failure: Set when the stage failed; nothing follows.
    """

    stage: str
    seconds: float
    result: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
