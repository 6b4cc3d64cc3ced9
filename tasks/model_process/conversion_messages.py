"""What parent and child say to each other of a conversion; the rules of `messages` hold.

Plans and results of the roles `convert`, `estimate`, `time`, `inspect` and `answer`.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_registry.servable import Check, Signature
from tasks.model_process.messages import Tolerance


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
