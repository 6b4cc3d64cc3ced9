"""The end of a run that has its version: a label follows if one was named, and the report is left where people look."""

from __future__ import annotations

import logging
import time
from typing import Any

from flows.artifacts import leave_artifacts, leave_labels
from flows.changes import change_sentence
from flows.flow_run import this_run
from flows.package_report import PackageReport
from flows.stage_log import done
from model_registry.errors import SlipwayError
from model_registry.registry import Registry
from model_registry.servable import ServableVersion
from model_registry.state import Origin
from tasks.promotion import follow_task
from tasks.stage_time import StageTime

logger = logging.getLogger("slipway")


def finish(
    registry: Registry,
    version: ServableVersion,
    stages: list[StageTime],
    *,
    label: str | None,
    reused: bool,
    started: float,
) -> dict[str, Any]:
    """Lets the label follow, if one was named, and reports. The version is committed whatever becomes of the label.

    Args:
        registry: Where it is.
        version: Which.
        stages: What took how long.
        label: Which label shall name it, or None.
        reused: Whether the version was there before.
        started: When the run was, by time.perf_counter.

    Returns:
        The report that `slipway package --json` prints.

    Raises:
        SlipwayError: If the label is refused.
    """

    def report() -> PackageReport:
        return PackageReport.of(registry, version, stages, reused=reused, seconds=time.perf_counter() - started)

    if label is None:
        return leave_artifacts(report()).as_json()
    following = time.perf_counter()
    try:
        record = follow_task(registry, version, label, Origin.here(run=this_run()))
    except SlipwayError:
        leave_artifacts(report())
        raise
    stages.append(done("label", time.perf_counter() - following, label))
    labelled = report().labelled(label, record)
    assert labelled.label is not None
    logger.info(change_sentence(labelled.label))
    leave_labels(registry, labelled.label)
    return leave_artifacts(labelled).as_json()
