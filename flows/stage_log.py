"""A line for each stage that is done: on the terminal, and with the flow run in Prefect."""

from __future__ import annotations

import logging

from tasks.stage_time import StageTime

logger = logging.getLogger("slipway")
# Under a worker nobody else sets a level, and the stages would be dropped before they reach Prefect.
logger.setLevel(logger.level or logging.INFO)


def done(stage: str, seconds: float, detail: str) -> StageTime:
    """Tells that a stage is done, and returns its time for the report."""
    logger.info("%-8s %5.1f s  %s", stage, seconds, detail)
    return StageTime(stage, seconds)
