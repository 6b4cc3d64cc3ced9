"""Convert a candidate by TF-TRT on this machine, and check what came of it.

A process for each step, one at a time: the GPU's memory is theirs alone, and whatever the native code of TensorRT
does, it ends as a ConversionError with the process's log.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from model_registry.errors import ConversionError, InvalidInputError
from model_registry.payload import payload_files, read_text
from model_registry.servable import Accelerator, Blessing, Check, Signature
from model_registry.serving import batching
from model_registry.spec import PackageSpec, TensorRTSpec
from model_registry.variants import REHEARSAL
from tasks.conversion_checks import conversion_checks
from tasks.estimation import Estimate, estimate
from tasks.model_process import segment_report
from tasks.model_process.client import ModelProcess
from tasks.model_process.conversion_messages import (
    BuiltEngines,
    ConvertedModel,
    ConvertPlan,
    RewrittenModel,
    Timed,
    TimePlan,
)
from tasks.model_process.messages import (
    CONVERT,
    TIME,
    VALIDATE,
    AnswersReady,
    Tolerance,
    ValidatedCandidate,
    ValidatePlan,
)
from tasks.server_check import Subject, check_in_server, require_server
from tasks.stage import stage
from tasks.stage_time import StageTime

# At run time a failed build, or a shape outside of every profile, would silently run the native segment.
_NO_FALLBACK = {"TF_TRT_ALLOW_ENGINE_NATIVE_SEGMENT_EXECUTION": "False"}
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Candidate:
    """A native variant that was exported, warmed up and validated.

    Attributes:
        model: Its name.
        saved_model: Where it lies, warm-up records included.
        cases: The requests beyond those records, and what the trained model answered to all of them.
        signatures: What it answers.
        records: How many warm-up records it has.
        rows: How many of the rows are no repetition.
        answers: How many cases were answered.
        spec: The spec in force.
        samples: The .npz file with the labels; None where no quality is asked for.
        trusted: Whether the operator granted what the spec asks for.
    """

    model: str
    saved_model: Path
    cases: Path
    signatures: tuple[Signature, ...]
    records: int
    rows: int
    answers: int
    spec: PackageSpec
    samples: Path | None
    trusted: bool = False


@dataclass(frozen=True)
class Converted:
    """What came of a conversion.

    Attributes:
        variant: Its name.
        directory: Where it lies.
        accelerator: What its engines were built on and fit; None after a rehearsal.
        checks: Every check that was made on it.
        stages: What took how long.
    """

    variant: str
    directory: Path
    accelerator: Accelerator | None
    checks: tuple[Check, ...]
    stages: tuple[StageTime, ...]

    @property
    def passed(self) -> bool:
        """Whether it may be published."""
        return Blessing(self.checks).verdict == "blessed"


def tolerance(settings: TensorRTSpec) -> Tolerance:
    """The parity a conversion is held to."""
    return Tolerance(atol=settings.atol, rtol=settings.rtol)


def estimate_candidate(process: ModelProcess, candidate: Candidate) -> Estimate:
    """Estimates on this machine's CPU what FP16 would do, before a GPU is paid for.

    Args:
        process: As `tasks.estimation.estimator` starts it.
        candidate: What is to be converted.

    Raises:
        ConversionError: If the estimate could not be made.
    """
    spec = candidate.spec
    return estimate(
        process,
        saved_model=candidate.saved_model,
        cases=candidate.cases,
        signatures=candidate.signatures,
        settings=spec.variants.tensorrt,
        timeout=spec.timeouts.convert,
        top1=spec.top1_agreement,
    )


def convert(candidate: Candidate, workspace: Path, *, rehearsal: bool) -> Converted:
    """Converts, checks, validates and times. What fails a check early is not tried any further.

    Args:
        candidate: What is converted.
        workspace: An empty directory.
        rehearsal: Whether to go without GPU and TensorRT.

    Raises:
        ConversionError: If one of the processes fails, ends or takes too long.
    """
    return _Conversion(candidate, workspace, rehearsal=rehearsal).run()


estimate_task = stage(estimate_candidate, "estimate")
convert_task = stage(convert, "convert")


class _Conversion:
    """A conversion under way."""

    def __init__(self, candidate: Candidate, workspace: Path, *, rehearsal: bool) -> None:
        self.candidate = candidate
        self.settings = candidate.spec.variants.tensorrt
        self.workspace = workspace
        self.directory = workspace / "converted"
        self.rehearsal = rehearsal
        self.accelerator: Accelerator | None = None
        self.stages: list[StageTime] = []
        self.limit = candidate.spec.timeouts.convert
        self.deadline = time.monotonic() + self.limit

    @property
    def variant(self) -> str:
        return self.accelerator.variant if self.accelerator else REHEARSAL

    def run(self) -> Converted:
        self._require_server()
        # The validator imports TensorFlow meanwhile, and touches no GPU before it is told its plan.
        with self._process(VALIDATE, _NO_GPU if self.rehearsal else _NO_FALLBACK) as validator:
            rewritten, checks = self._rewrite_and_build()
            if all(check.passed for check in checks):
                checks += self._validate(validator)
        if all(check.passed for check in checks) and not self.rehearsal:
            checks += self._measure_speed(rewritten)
        if all(check.passed for check in checks):
            checks += self._serve()
        return Converted(self.variant, self.directory, self.accelerator, checks, tuple(self.stages))

    def _rewrite_and_build(self) -> tuple[RewrittenModel, tuple[Check, ...]]:
        candidate = self.candidate
        plan = ConvertPlan(
            saved_model=str(candidate.saved_model),
            converted=str(self.directory),
            cases=str(candidate.cases),
            signatures=candidate.signatures,
            workspace=self.settings.workspace,
            rehearsal=self.rehearsal,
        )
        hidden = _NO_GPU if self.rehearsal else {}
        with self._process(CONVERT, {**segment_report.SETTINGS, **hidden}) as process:
            process.tell(plan)
            if not self.rehearsal:
                self.accelerator = self._result(process, "preflight", Accelerator)
            rewritten = self._result(process, "rewrite", RewrittenModel)
            built = self._result(process, "build", BuiltEngines)
            converted = self._result(process, "save", ConvertedModel)
        checks = conversion_checks(
            rewritten,
            None if self.rehearsal else built,
            converted,
            payload_files(self.directory),
            settings=self.settings,
            variant=self.variant,
        )
        return rewritten, checks

    def _validate(self, validator: ModelProcess) -> tuple[Check, ...]:
        candidate = self.candidate
        plan = ValidatePlan(
            candidate=str(self.directory),
            cases=str(candidate.cases),
            signatures=candidate.signatures,
            records=candidate.records,
            rows=candidate.rows,
            tolerance=tolerance(self.settings),
            spec=candidate.spec.model_dump(mode="json"),
            samples=str(candidate.samples) if candidate.samples else None,
            variant=self.variant,
            batching=read_text(candidate.saved_model, batching.FILE, most=batching.MOST_BYTES),
        )
        validator.tell(plan)
        validator.tell(AnswersReady(candidate.answers))
        return self._result(validator, "validate", ValidatedCandidate).checks

    def _measure_speed(self, rewritten: RewrittenModel) -> tuple[Check, ...]:
        converted = {signature.name for signature in rewritten.signatures if not signature.native}
        plan = TimePlan(
            native=str(self.candidate.saved_model),
            converted=str(self.directory),
            signatures=tuple(item for item in self.candidate.signatures if item.name in converted),
            min_speedup=self.settings.min_speedup,
            variant=self.variant,
        )
        with self._process(TIME, _NO_FALLBACK) as process:
            process.tell(plan)
            return self._result(process, "time", Timed).checks

    def _require_server(self) -> None:
        """Before the hour that a conversion may take."""
        if self.rehearsal:
            return
        try:
            require_server(self.candidate.spec, accelerated=True)
        except InvalidInputError as error:
            raise ConversionError(error.message, hint=error.hint) from None

    def _serve(self) -> tuple[Check, ...]:
        candidate = self.candidate
        subject = Subject(
            model=candidate.model,
            directory=self.directory,
            cases=candidate.cases,
            answers=candidate.answers,
            records=candidate.records,
            signatures=candidate.signatures,
            tolerance=tolerance(self.settings),
            variant=self.variant,
            accelerated=True,
        )
        checks, seconds = check_in_server(subject, candidate.spec, self.workspace, failure=ConversionError)
        if checks:
            self.stages.append(StageTime("serve", seconds))
        return checks

    def _process(self, role: Any, settings: dict[str, str]) -> ModelProcess:
        return ModelProcess(role, self.workspace / role, failure=ConversionError, settings=settings)

    def _result(self, process: ModelProcess, stage_name: str, kind: type[_Result]) -> _Result:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ConversionError(
                f"the conversion did not come to {stage_name} within {self.limit:g} s",
                hint="raise `timeouts.convert` in the spec, or list fewer batch_sizes: each is built for",
            )
        result, seconds = process.result(stage_name, kind, left)
        self.stages.append(StageTime(stage_name, seconds))
        return result
