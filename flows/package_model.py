"""Package a trained Keras model: load, export, warm up, validate, publish."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import leave_artifacts, leave_labels
from flows.changes import change_sentence
from flows.flow_run import this_run
from flows.package_report import PackageReport, StageTime
from model_registry.errors import RejectedError, SlipwayError
from model_registry.servable import NATIVE, Blessing, ServableVersion
from model_registry.state import Origin
from tasks.export import export_model_task
from tasks.loading import fetch_source_task, load_model_task
from tasks.package_request import PackageRequest
from tasks.packaging_run import PackagingRun, packaging_run
from tasks.promotion import follow_task
from tasks.publication import publish_task
from tasks.validation import validate_candidate_task
from tasks.warmup import warm_up_task

logger = logging.getLogger("slipway")
# Under a worker nobody else sets a level, and the stages would be dropped before they reach Prefect.
logger.setLevel(logger.level or logging.INFO)


@flow(name="package-model", persist_result=False, validate_parameters=True)
def package_model(
    source: str | None = None,
    spec: Path | None = None,
    name: str | None = None,
    registry: str | None = None,
    variants: tuple[str, ...] = (NATIVE,),
    trust: bool = False,
    force: bool = False,
    label: str | None = None,
) -> dict[str, Any]:
    """Turns a trained Keras model into a version that TensorFlow Serving loads.

    Args:
        source: The trained model: a path or an s3:// URI. Wins over the spec's.
        spec: A package.yaml; without one everything is read from the model.
        name: The name to publish under. Wins over the spec's.
        registry: A path or s3://bucket/prefix; SLIPWAY_REGISTRY or ./registry when left out.
        variants: What must be delivered.
        trust: Grants what the spec asks for: custom_objects, unsafe_deserialization.
        force: Package anew even if nothing changed since the last version.
        label: Lets this label name the version, unless it ever named a higher one.

    Returns:
        The report that `slipway package --json` prints.

    Raises:
        RejectedError: If a check failed.
        ConflictError: If the label is refused; the version is published all the same.
        SlipwayError: If anything else stands in the way.
    """
    request = PackageRequest(source, spec, name, registry, tuple(variants), trust, force, label)
    with packaging_run(request) as run:
        stages: list[StageTime] = []
        begun = fetch_source_task(run)
        stages.append(_done("fetch", begun.seconds, f"{begun.described.uri}, {begun.described.bytes:,} bytes"))
        if begun.existing is not None:
            logger.info("reused   %s:%s was made from the same input", begun.existing.model, begun.existing.version)
            return _done_with(run, begun.existing, stages, reused=True)

        model, seconds = load_model_task(run)
        stages.append(_done("load", seconds, f"{model.kind}, {model.parameters:,} parameters, {model.precision}"))

        exported, seconds = export_model_task(run)
        stages.append(_done("export", seconds, ", ".join(item.name for item in exported.signatures)))
        for note in exported.notes:
            logger.warning("note     %s", note)

        warmed, seconds = warm_up_task(run)
        rows = f"{warmed.rows} {'made-up' if warmed.synthesised else 'sample'} rows"
        stages.append(_done("warm up", seconds, f"{warmed.records} records from {rows}"))

        blessing, seconds = validate_candidate_task(run, model, exported, warmed)
        stages.append(_done("validate", seconds, _verdict(blessing)))

        started = time.perf_counter()
        try:
            version, reused = publish_task(run, exported, blessing, this_run())
        except RejectedError:
            leave_artifacts(PackageReport.rejected(run, blessing, stages))
            raise
        stages.append(_done("publish", time.perf_counter() - started, f"{version.model}:{version.version}"))
        return _done_with(run, version, stages, reused=reused)


def _done_with(run: PackagingRun, version: ServableVersion, stages: list[StageTime], *, reused: bool) -> dict[str, Any]:
    """Lets the label follow, if one was named, and reports. The version is committed whatever becomes of the label."""
    label = run.request.label
    if label is None:
        return leave_artifacts(PackageReport.of(run, version, stages, reused=reused)).as_json()
    started = time.perf_counter()
    try:
        record = follow_task(run.registry, version, label, Origin.here(run=this_run()))
    except SlipwayError:
        leave_artifacts(PackageReport.of(run, version, stages, reused=reused))
        raise
    stages.append(_done("label", time.perf_counter() - started, label))
    report = PackageReport.of(run, version, stages, reused=reused).labelled(label, record)
    assert report.label is not None
    logger.info(change_sentence(report.label))
    leave_labels(run.registry, report.label)
    return leave_artifacts(report).as_json()


def _done(stage: str, seconds: float, detail: str) -> StageTime:
    logger.info("%-8s %5.1f s  %s", stage, seconds, detail)
    return StageTime(stage, seconds)


def _verdict(blessing: Blessing) -> str:
    passed = len(blessing.checks) - len(blessing.failures)
    return f"{passed} of {len(blessing.checks)} checks passed"
