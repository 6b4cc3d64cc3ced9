"""Package a trained Keras model: load, export, warm up, validate, convert, publish."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import leave_artifacts
from flows.conversion_stages import convert_candidate
from flows.finishing import finish
from flows.flow_run import this_run
from flows.package_report import PackageReport
from flows.stage_log import done
from model_registry.errors import RejectedError
from model_registry.servable import Blessing
from model_registry.variants import VariantName
from tasks.conversion_outcome import ConversionOutcome
from tasks.export import export_model_task
from tasks.loading import fetch_source_task, load_model_task
from tasks.package_request import PackageRequest
from tasks.packaging_run import packaging_run
from tasks.publication import publish_task
from tasks.server_check import is_asked_for
from tasks.stage_time import StageTime
from tasks.validation import serve_candidate_task, validate_candidate_task, validated
from tasks.warmup import warm_up_task

logger = logging.getLogger("slipway")


@flow(name="package-model", persist_result=False, validate_parameters=True)
def package_model(
    source: str | None = None,
    spec: Path | str | None = None,
    name: str | None = None,
    registry: str | None = None,
    variants: tuple[VariantName, ...] = (),
    trust: bool = False,
    force: bool = False,
    label: str | None = None,
) -> dict[str, Any]:
    """Turns a trained Keras model into a version that TensorFlow Serving loads.

    Args:
        source: The trained model: a path or an s3:// URI. Wins over the spec's.
        spec: A package.yaml, a path or an s3:// URI; without one everything is read from the model.
        name: The name to publish under. Wins over the spec's.
        registry: A path or s3://bucket/prefix; SLIPWAY_REGISTRY or ./registry when left out.
        variants: What must be delivered: `native`, `tensorrt-fp16`. Left empty, `native` is, and `tensorrt-fp16` where
            it can be converted; the report says why if it cannot.
        trust: Grants what the spec asks for: custom_objects, unsafe_deserialization, an image or a running server.
        force: Package anew even if nothing changed since the last version.
        label: Lets this label name the version, unless it ever named a higher one.

    Returns:
        The report that `slipway package --json` prints.

    Raises:
        RejectedError: If a check failed.
        ConversionError: If a variant that must be delivered cannot be converted.
        ConflictError: If the label is refused; the version is published all the same.
        SlipwayError: If anything else stands in the way.
    """
    request = PackageRequest(source, spec, name, registry, tuple(variants), trust, force, label)
    with packaging_run(request) as run:
        stages: list[StageTime] = []
        begun = fetch_source_task(run)
        stages.append(done("fetch", begun.seconds, f"{begun.described.uri}, {begun.described.bytes:,} bytes"))
        if begun.existing is not None:
            logger.info("reused   %s:%s was made from the same input", begun.existing.model, begun.existing.version)
            return finish(run.registry, begun.existing, stages, label=label, reused=True, started=run.started)

        model, seconds = load_model_task(run)
        stages.append(done("load", seconds, f"{model.kind}, {model.parameters:,} parameters, {model.precision}"))

        exported, seconds = export_model_task(run)
        stages.append(done("export", seconds, ", ".join(item.name for item in exported.signatures)))
        for note in exported.notes:
            logger.warning("note     %s", note)

        warmed, seconds = warm_up_task(run)
        rows = f"{warmed.rows} {'made-up' if warmed.synthesised else 'sample'} rows"
        stages.append(done("warm up", seconds, f"{warmed.records} records from {rows}"))

        native, answers, seconds = validate_candidate_task(run, model, exported, warmed)
        stages.append(done("validate", seconds, _verdict(native)))

        if native.verdict == "blessed" and is_asked_for(run.loaded.spec):
            served, seconds = serve_candidate_task(run, model, exported, warmed, answers)
            stages.append(done("serve", seconds, _verdict(Blessing(served))))
            native = Blessing((*native.checks, *served))

        conversion = ConversionOutcome()
        if native.verdict == "blessed":  # what is not fit to be published is not worth a GPU
            run.end_loading()
            conversion = convert_candidate(
                run.delivery,
                validated(run, exported, warmed, answers),
                run.workspace / "conversion",
                store=run.registry.store,
                estimator=run.estimator,
                made_by=this_run(),
                stages=stages,
            )
        blessing = Blessing((*native.checks, *conversion.checks))

        started = time.perf_counter()
        try:
            version, reused = publish_task(run, exported, blessing, conversion, this_run())
        except RejectedError:
            leave_artifacts(PackageReport.rejected(run.registry, run.loaded.spec.model, blessing, stages, run.seconds))
            raise
        stages.append(done("publish", time.perf_counter() - started, f"{version.model}:{version.version}"))
        return finish(run.registry, version, stages, label=label, reused=reused, started=run.started)


def _verdict(blessing: Blessing) -> str:
    passed = len(blessing.checks) - len(blessing.failures)
    return f"{passed} of {len(blessing.checks)} checks passed"
