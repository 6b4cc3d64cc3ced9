"""The stages that convert a candidate: the estimate on this machine, then TF-TRT, here or on a worker elsewhere."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from flows.stage_log import done
from model_registry.errors import ConversionError, FormatError, InvalidInputError
from model_registry.servable import TENSORRT_FP16, Blessing, Check, Run
from model_registry.storage import ObjectStore
from model_registry.variants import REHEARSAL
from tasks.conversion import Candidate, Converted, convert_task, estimate_task
from tasks.conversion_outcome import ConversionOutcome
from tasks.conversion_place import Here
from tasks.conversion_pool import Pool
from tasks.delivery import Delivery
from tasks.handover import hand_over_task
from tasks.model_process.client import ModelProcess
from tasks.publication import rejection
from tasks.stage_time import StageTime

logger = logging.getLogger("slipway")


def convert_candidate(
    delivery: Delivery,
    candidate: Candidate,
    workspace: Path,
    *,
    store: ObjectStore,
    estimator: ModelProcess | None,
    made_by: Run,
    stages: list[StageTime],
) -> ConversionOutcome:
    """Converts a candidate as far as it was set out to, and tells what became of it.

    What was only welcome fails without the version: the outcome says why it is missing.

    Args:
        delivery: What was set out to.
        candidate: What is converted.
        workspace: Where; is made.
        store: The registry's, where a worker elsewhere is met.
        estimator: The process that estimates, started early.
        made_by: This run.
        stages: What took how long; is added to.

    Raises:
        ConversionError: If what must be delivered could not be converted. One that failed a check is an outcome.
    """
    place = delivery.to_convert
    if place is None or estimator is None:
        for name, reason in delivery.missing.items():
            logger.info("note     %s is left out: %s", name, reason)
        return ConversionOutcome(missing=delivery.missing)
    try:
        checks = _estimate(estimator, candidate, stages)
        converted = None
        if _passed(checks):
            converted = _convert(place, candidate, workspace, store, made_by, stages)
            checks += converted.checks
    except (ConversionError, InvalidInputError, FormatError) as error:
        if delivery.required:
            raise
        logger.warning("note     %s is left out: %s", TENSORRT_FP16, error)
        # What a crash left of its log is in the log of this run.
        return ConversionOutcome(missing={TENSORRT_FP16: f"the conversion failed: {error.message.splitlines()[0]}"})
    if _passed(checks):
        return ConversionOutcome(converted, checks)
    if delivery.required:
        return ConversionOutcome(checks=checks)
    reason = f"the conversion was rejected: {rejection(Blessing(checks))}"
    logger.warning("note     %s is left out: %s", TENSORRT_FP16, reason)
    return ConversionOutcome(missing={TENSORRT_FP16: reason})


def _estimate(estimator: ModelProcess, candidate: Candidate, stages: list[StageTime]) -> tuple[Check, ...]:
    estimate = estimate_task(estimator, candidate)
    estimator.end()
    engines = estimate.rewritten.engines
    found = (
        f"{engines} {'engine' if engines == 1 else 'engines'}, {estimate.rewritten.coverage:.0%} of the nodes inside"
    )
    stages.append(done("estimate", estimate.seconds, f"{found}; {_counted(estimate.checks)}, no TensorRT ran"))
    return estimate.checks


def _convert(
    place: Here | Pool, candidate: Candidate, workspace: Path, store: ObjectStore, made_by: Run, stages: list[StageTime]
) -> Converted:
    started = time.perf_counter()
    workspace.mkdir()
    if isinstance(place, Pool):
        converted = hand_over_task(store, place, candidate, workspace, made_by)
    else:
        converted = convert_task(candidate, workspace, rehearsal=place.accelerator is None)
    steps = ", ".join(f"{step.stage} {step.seconds:.1f} s" for step in converted.stages)
    rehearsed = ", a rehearsal: no TensorRT ran" if converted.variant == REHEARSAL else ""
    detail = f"{converted.variant}{rehearsed}; {steps}; {_counted(converted.checks)}"
    stages.append(done("convert", time.perf_counter() - started, detail))
    return converted


def _passed(checks: tuple[Check, ...]) -> bool:
    return Blessing(checks).verdict == "blessed"


def _counted(checks: tuple[Check, ...]) -> str:
    return f"{sum(check.passed for check in checks)} of {len(checks)} checks passed"
