"""Convert a published version: a new version with the same native bytes and a converted variant beside them."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

from prefect import flow

from flows.artifacts import leave_artifacts
from flows.conversion_stages import convert_candidate
from flows.finishing import finish
from flows.flow_run import this_run
from flows.package_report import PackageReport
from flows.stage_log import done
from model_registry.errors import ConversionError, RejectedError
from tasks.estimation import estimator
from tasks.model_process.client import ModelProcess
from tasks.model_process.messages import ANSWER, ESTIMATE
from tasks.stage_time import StageTime
from tasks.version_conversion import (
    fetch_native_task,
    look_up_version_task,
    publish_conversion_task,
    record_answers_task,
)

logger = logging.getLogger("slipway")

_ON_THE_CPU = {"CUDA_VISIBLE_DEVICES": "-1"}


@flow(name="convert-version", persist_result=False, validate_parameters=True)
def convert_version(
    version: str,
    registry: str | None = None,
    force: bool = False,
    label: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Converts a published version by TF-TRT into a new version that has both variants.

    The trained model is not needed: the native variant's own answers to its warm-up records are what the
    conversion is held against, and its checks say so.

    Args:
        version: Which, `digits:3` or `digits@stable`.
        registry: A path or s3://bucket/prefix; SLIPWAY_REGISTRY or ./registry when left out.
        force: Convert anew even if nothing changed since the last conversion.
        label: Lets this label name the new version, unless it ever named a higher one.
        trust: Grants what the version's spec asks for: an image or a running server to try the variant in.

    Returns:
        The report that `slipway package --json` prints.

    Raises:
        NotFoundError: If there is no such version.
        ConversionError: If nobody can convert it, or the conversion failed.
        RejectedError: If a check failed.
        ConflictError: If the label is refused; the new version is published all the same.
        SlipwayError: If anything else stands in the way.
    """
    started = time.perf_counter()
    conversion = look_up_version_task(version, registry, force=force, trust=trust)
    opened, stages = conversion.registry, list[StageTime]()
    if conversion.existing is not None:
        logger.info("reused   %s:%s has it already", conversion.existing.model, conversion.existing.version)
        return finish(opened, conversion.existing, stages, label=label, reused=True, started=started)
    with (
        opened.store.workspace(uuid.uuid4().hex) as workspace,
        ModelProcess(ANSWER, workspace / ANSWER, failure=ConversionError, settings=_ON_THE_CPU) as answering,
        estimator(workspace / ESTIMATE) as estimating,
    ):
        native, seconds = fetch_native_task(conversion, workspace / "native")
        stages.append(done("fetch", seconds, f"{conversion.name}, {native.bytes:,} bytes"))

        candidate, seconds = record_answers_task(conversion, answering, workspace / "native", workspace / "cases")
        stages.append(done("answer", seconds, f"{candidate.answers} warm-up records, by the native variant"))

        outcome = convert_candidate(
            conversion.delivery,
            candidate,
            workspace / "conversion",
            store=opened.store,
            estimator=estimating,
            made_by=this_run(),
            stages=stages,
        )

        publishing = time.perf_counter()
        try:
            made, reused = publish_conversion_task(conversion, workspace / "native", outcome, this_run())
        except RejectedError as error:
            report = PackageReport.rejected(
                opened, candidate.model, error.blessing, stages, time.perf_counter() - started
            )
            leave_artifacts(report)
            raise
        stages.append(done("publish", time.perf_counter() - publishing, f"{made.model}:{made.version}"))
        return finish(opened, made, stages, label=label, reused=reused, started=started)
