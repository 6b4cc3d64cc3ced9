"""Try the candidate in a process that never saw the model, and bless or reject it."""

from __future__ import annotations

from model_registry.servable import NATIVE, Blessing, Check
from model_registry.serving import batching
from model_registry.spec import PackageSpec
from tasks.conversion import Candidate
from tasks.model_process.messages import (
    AnswersReady,
    ExportedModel,
    LoadedModel,
    ReferenceAnswers,
    Tolerance,
    ValidatedCandidate,
    ValidatePlan,
    WarmedModel,
)
from tasks.packaging_run import PackagingRun
from tasks.server_check import Subject, check_in_server
from tasks.stage import stage

# Eager and graph execution of one model differ by about this much: TensorFlow fuses and reorders, and
# half precision keeps 11 bits of a number, bfloat16 8.
_TOLERANCES = {
    "float32": Tolerance(atol=1e-5, rtol=1e-4),
    "float16": Tolerance(atol=1e-2, rtol=1e-2),
    "bfloat16": Tolerance(atol=5e-2, rtol=5e-2),
}


def tolerance(spec: PackageSpec, model: LoadedModel) -> Tolerance:
    """The parity the native variant is held to: the spec's, else what the model's precision allows."""
    native, default = spec.variants.native, _TOLERANCES[model.precision]
    return Tolerance(
        atol=default.atol if native.atol is None else native.atol,
        rtol=default.rtol if native.rtol is None else native.rtol,
    )


def validate_candidate(
    run: PackagingRun, model: LoadedModel, exported: ExportedModel, warmed: WarmedModel
) -> tuple[Blessing, int, float]:
    """Has the validator make every check, beside the model process that works out the answers.

    Args:
        run: The packaging.
        model: What was loaded; its precision sets the tolerance.
        exported: The signatures the candidate must have.
        warmed: The records it must have.

    Returns:
        All checks, the number of cases the trained model answered, and the seconds it took.

    Raises:
        InvalidInputError: If one of the processes ended or took too long.
    """
    spec, begun = run.loaded.spec, run.begin()
    timeout = spec.timeouts.validation
    run.validator.tell(
        ValidatePlan(
            candidate=str(run.candidate),
            cases=str(run.cases),
            signatures=exported.signatures,
            records=warmed.records,
            rows=warmed.rows,
            tolerance=tolerance(spec, model),
            spec=spec.model_dump(mode="json"),
            samples=str(begun.samples) if begun.samples else None,
            variant=NATIVE,
            batching=batching.for_version(exported.signatures, exported.batch_sizes),
        )
    )
    answers, _ = run.model.result("answer", ReferenceAnswers, timeout)
    run.validator.tell(AnswersReady(answers.cases))
    validated, seconds = run.validator.result("validate", ValidatedCandidate, timeout)
    return Blessing(validated.checks), answers.cases, seconds


def serve_candidate(
    run: PackagingRun, model: LoadedModel, exported: ExportedModel, warmed: WarmedModel, answers: int
) -> tuple[tuple[Check, ...], float]:
    """Tries the native candidate in the server that the spec names; the processes that loaded the model end before.

    Args:
        run: The packaging.
        model: What was loaded; its precision sets the tolerance.
        exported: What the candidate answers.
        warmed: The records it has.
        answers: How many cases the trained model answered.

    Returns:
        The checks, and the seconds they took.

    Raises:
        InvalidInputError: If there is no such server any more, or it is lost.
    """
    run.end_loading()
    spec = run.loaded.spec
    subject = Subject(
        model=spec.model,
        directory=run.candidate,
        cases=run.cases,
        answers=answers,
        records=warmed.records,
        signatures=exported.signatures,
        tolerance=tolerance(spec, model),
        variant=NATIVE,
    )
    workspace = run.workspace / "serve"
    workspace.mkdir(exist_ok=True)
    return check_in_server(subject, spec, workspace)


def validated(run: PackagingRun, exported: ExportedModel, warmed: WarmedModel, answers: int) -> Candidate:
    """The candidate as a conversion takes it.

    Args:
        run: The packaging.
        exported: What it answers.
        warmed: The records it has.
        answers: How many cases the trained model answered.
    """
    spec, begun = run.loaded.spec, run.begin()
    return Candidate(
        model=spec.model,
        saved_model=run.candidate,
        cases=run.cases,
        signatures=exported.signatures,
        records=warmed.records,
        rows=warmed.rows,
        answers=answers,
        spec=spec,
        samples=begun.samples if spec.quality else None,
        trusted=run.request.trust,
    )


validate_candidate_task = stage(validate_candidate, "validate")
serve_candidate_task = stage(serve_candidate, "serve")
