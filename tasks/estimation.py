"""What FP16 engines would make of a SavedModel, estimated on a CPU before a GPU is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_registry.errors import ConversionError, RejectedError
from model_registry.servable import TENSORRT_FP16, Blessing, Check, Signature
from model_registry.spec import TensorRTSpec, Top1AgreementSpec
from tasks.model_process import segment_report
from tasks.model_process.client import ModelProcess
from tasks.model_process.conversion_messages import Estimated, EstimatePlan, RewrittenModel
from tasks.model_process.messages import (
    ESTIMATE,
    Tolerance,
)

# A GPU that TensorFlow sees it takes whole, and computes in TF32 on it.
_SETTINGS = {"CUDA_VISIBLE_DEVICES": "-1", **segment_report.SETTINGS}


@dataclass(frozen=True)
class Estimate:
    """What was found out without a GPU.

    Attributes:
        rewritten: What TF-TRT would put into engines, and what it would leave out.
        checks: Each called an estimate.
        seconds: How long it took.
    """

    rewritten: RewrittenModel
    checks: tuple[Check, ...]
    seconds: float

    def refusal(self, name: str) -> RejectedError | None:
        """The error to raise if a check failed, else None.

        Args:
            name: Of what was estimated, as a person knows it.
        """
        blessing = Blessing(self.checks)
        failed = ", ".join(check.check for check in blessing.failures)
        if blessing.verdict == "blessed":
            return None
        return RejectedError(
            f"{name} is not fit for FP16 engines, by an estimate without TensorRT: {failed}",
            blessing=blessing,
            hint="see which layer is named and what is left out; the spec sets the limits under variants.tensorrt-fp16",
        )


def estimator(directory: Path) -> ModelProcess:
    """Starts the process that estimates; it imports TensorFlow and waits to be told what.

    Args:
        directory: An empty directory for its temporary files; is made.

    Raises:
        InvalidInputError: If TensorFlow is not installed.
    """
    return ModelProcess(ESTIMATE, directory, failure=ConversionError, settings=_SETTINGS)


def estimate(
    process: ModelProcess,
    *,
    saved_model: Path,
    cases: Path | None,
    signatures: Sequence[Signature],
    settings: TensorRTSpec,
    timeout: float,
    top1: Top1AgreementSpec | None = None,
) -> Estimate:
    """Has TF-TRT's rewrite done, and the engines' part of the graph tried in half precision.

    Args:
        process: As `estimator` starts it; it estimates once.
        saved_model: The native variant with its warm-up records.
        cases: Where requests beyond those lie, or None.
        signatures: Those of the native variant.
        settings: What the estimate is held against.
        timeout: Seconds for all of it.
        top1: How often the same class must come first; the spec's default if None.

    Raises:
        ConversionError: If the estimate could not be made: TF-TRT failed, or the process ended.
    """
    agreement = top1 or Top1AgreementSpec()
    process.tell(
        EstimatePlan(
            saved_model=str(saved_model),
            cases=str(cases) if cases else None,
            signatures=tuple(signatures),
            tolerance=Tolerance(settings.atol, settings.rtol),
            min_coverage=settings.min_coverage,
            variant=TENSORRT_FP16,
            top1_at_least=agreement.at_least,
            top1_min_samples=agreement.min_samples,
        )
    )
    rewritten, rewriting = process.result("rewrite", RewrittenModel, timeout)
    estimated, estimating = process.result("estimate", Estimated, max(1.0, timeout - rewriting))
    return Estimate(rewritten, estimated.checks, rewriting + estimating)
