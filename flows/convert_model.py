"""Convert a staged candidate by TF-TRT: what package-model and convert-version hand over to a worker with a GPU."""

from __future__ import annotations

import logging
import os
import uuid
from typing import Any

from prefect import flow

from flows.flow_run import this_run
from flows.stage_log import done
from model_registry.errors import InvalidInputError
from model_registry.storage import open_store
from model_registry.variants import REHEARSAL
from tasks.conversion_place import rehearsing
from tasks.handover_worker import convert_staged_task

logger = logging.getLogger("slipway")


@flow(name="convert-model", persist_result=False, validate_parameters=True)
def convert_model(registry: str, run: str, trust: bool = False) -> dict[str, Any]:
    """Converts what another run has staged, and brings the result back to it. Nobody starts it by hand.

    Args:
        registry: s3://bucket/prefix, which both sides reach.
        run: The name of the staging directory.
        trust: Grants what the spec asks for: an image or a running server to try the variant in.

    Returns:
        The variant's name and what it is made for.

    Raises:
        InvalidInputError: If the registry is none that two machines reach.
        ConversionError: If the conversion failed; the run that waits for it was told.
        SlipwayError: If anything else stands in the way, likewise.
    """
    if not registry.startswith("s3://"):
        raise InvalidInputError(
            f"{registry[:200]} is no registry that a worker elsewhere shares: expected s3://BUCKET/PREFIX",
            hint="package-model and convert-version start this flow; to convert a version, start convert-version",
        )
    store = open_store(registry)
    with store.workspace(uuid.uuid4().hex) as workspace:
        converted = convert_staged_task(
            store, run, workspace, made_by=this_run(), rehearsal=rehearsing(os.environ), trusted=trust
        )
    for step in converted.stages:
        done(step.stage, step.seconds, converted.variant)
    for check in converted.checks:
        if not check.passed:
            logger.warning("note     %s failed: measured %s, allowed %s", check.check, check.measured, check.threshold)
    if converted.variant == REHEARSAL:
        logger.warning("note     this was a rehearsal: no TensorRT ran")
    return {"variant": converted.variant, "passed": converted.passed, "accelerator": converted.accelerator}
