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
Role = Literal[
    "prepare", "validate", "predict", "survey", "preflight", "convert", "estimate", "time", "inspect", "answer"
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
class ConvertPlan:
    """What is to be converted by TF-TRT. Paths are absolute.

    Attributes:
        saved_model: The native variant.
        converted: Where to write the other; must not exist.
        cases: Where requests beyond the warm-up records lie (`cases.REQUESTS`).
        signatures: Those of the native variant; the converted one must have the same.
        workspace: Bytes of GPU memory that TensorRT may use for one engine.
        rehearsal: Whether to go without GPU and TensorRT: the graph is rewritten, no engine is built, and
            each is put back as what it was made from.
    """

    saved_model: str
    converted: str
    cases: str
    signatures: tuple[Signature, ...]
    workspace: int
    rehearsal: bool


@dataclass(frozen=True)
class Segment:
    """A part of the graph that becomes one engine.

    Attributes:
        name: Of the TRTEngineOp.
        nodes: How many nodes it holds.
        computing_nodes: How many of them are no constants.
    """

    name: str
    nodes: int
    computing_nodes: int


@dataclass(frozen=True)
class LeftOut:
    """Nodes of one op that stay outside of every engine.

    Attributes:
        op: Such as `ResourceGather`.
        nodes: How many.
        reason: Why, as far as TF-TRT says so; empty if it does not.
    """

    op: str
    nodes: int
    reason: str


@dataclass(frozen=True)
class RewrittenSignature:
    """What TF-TRT made of one signature.

    Attributes:
        name: Of the signature.
        native: Why it stays as it is in the same SavedModel; empty for one that was converted.
        nodes: How many nodes its graph has, those inside engines included.
        computing_nodes: How many of them are no constants.
        segments: Its engines, in the order of their names.
        left_out: What stays outside of them, by op.
    """

    name: str
    native: str
    nodes: int
    computing_nodes: int
    segments: tuple[Segment, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def coverage(self) -> float:
        """The share of computing nodes that lie inside engines, 0 to 1."""
        inside = sum(segment.computing_nodes for segment in self.segments)
        return inside / self.computing_nodes if self.computing_nodes else 0.0


@dataclass(frozen=True)
class RewrittenModel:
    """What TF-TRT made of a SavedModel: all signatures, in the order of their names."""

    signatures: tuple[RewrittenSignature, ...]

    @property
    def engines(self) -> int:
        """How many there are."""
        return sum(len(signature.segments) for signature in self.signatures)

    @property
    def coverage(self) -> float:
        """The share of computing nodes inside engines, over the signatures that are converted."""
        converted = [signature for signature in self.signatures if not signature.native]
        inside = sum(segment.computing_nodes for signature in converted for segment in signature.segments)
        return inside / max(1, sum(signature.computing_nodes for signature in converted))


@dataclass(frozen=True)
class BuiltEngines:
    """How many engines were built from the requests; 0 in a rehearsal."""

    engines: int


@dataclass(frozen=True)
class ConvertedModel:
    """The last stage of a conversion.

    Attributes:
        graph_bytes: Size of its saved_model.pb, which holds the frozen weights.
        promised_assets: The engines that its graph will look for, as paths below its directory.
    """

    graph_bytes: int
    promised_assets: tuple[str, ...]


@dataclass(frozen=True)
class EstimatePlan:
    """What is to be tried in half precision, without any GPU. Paths are absolute.

    Attributes:
        saved_model: The native variant.
        cases: Where requests beyond the warm-up records lie, or None.
        signatures: Its signatures.
        tolerance: What the estimated error is held against.
        min_coverage: The smallest share of non-Const nodes inside engines.
        variant: Which variant the checks belong to.
        top1_at_least: The smallest share of rows for which both must choose the same class.
        top1_min_samples: Fewer rows than this are not judged.
    """

    saved_model: str
    cases: str | None
    signatures: tuple[Signature, ...]
    tolerance: Tolerance
    min_coverage: float
    variant: str
    top1_at_least: float = 0.99
    top1_min_samples: int = 100


@dataclass(frozen=True)
class Estimated:
    """The result of an estimate: its checks, each called an estimate."""

    checks: tuple[Check, ...]


@dataclass(frozen=True)
class TimePlan:
    """Whose speed is to be measured. Paths are absolute.

    Attributes:
        native: The SavedModel that the other is held against.
        converted: The SavedModel with engines.
        signatures: Those to measure: what was converted.
        min_speedup: How many times as fast each must be at each batch size; None only measures.
        variant: Which variant the checks belong to.
    """

    native: str
    converted: str
    signatures: tuple[Signature, ...]
    min_speedup: float | None
    variant: str


@dataclass(frozen=True)
class Timed:
    """The result of timing: `speed-up/<signature>/<batch size>`, a check each."""

    checks: tuple[Check, ...]


@dataclass(frozen=True)
class InspectPlan:
    """A SavedModel that is to be read without running any of it. Paths are absolute.

    Attributes:
        saved_model: Its directory.
        signatures: What it must have.
        variant: Which variant the checks belong to.
    """

    saved_model: str
    signatures: tuple[Signature, ...]
    variant: str


@dataclass(frozen=True)
class AnswerPlan:
    """A published SavedModel whose own answers are to be written down. Paths are absolute.

    Attributes:
        saved_model: Its directory, warm-up records included.
        cases: Where to write them, as the model process writes those of a trained model.
    """

    saved_model: str
    cases: str


@dataclass(frozen=True)
class RecordedAnswers:
    """The answers of a published SavedModel to its own warm-up records.

    Attributes:
        answers: How many there are, one for each record.
        rows: How many rows the largest record has.
    """

    answers: int
    rows: int


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
