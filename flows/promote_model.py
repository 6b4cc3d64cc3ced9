"""Promote a version: let a label name it, and show in Prefect what moved."""

from __future__ import annotations

import logging
from typing import Any, Literal

from prefect import flow

from flows.artifacts import leave_labels
from flows.changes import change_document, change_sentence
from flows.flow_run import this_run
from model_registry.registry import Registry
from model_registry.state import Origin, Transition
from model_registry.transitions import Expect
from tasks.promotion import promote_task

logger = logging.getLogger("slipway")
# Under a worker nobody else sets a level, and what was moved would be dropped before it reaches Prefect.
logger.setLevel(logger.level or logging.INFO)


@flow(name="promote-model", persist_result=False, validate_parameters=True)
def promote_model(
    model: str,
    version: int,
    label: str,
    expect: int | Literal["none"] | None = None,
    reason: str = "",
    registry: str | None = None,
) -> dict[str, Any]:
    """Lets a label name a committed version of a model.

    Args:
        model: The model's name.
        version: Which version the label shall name.
        label: Which label, such as `stable`.
        expect: Refuse if the label names another version now; `none` if it must name nothing yet.
        reason: Why; `slipway history` shows it.
        registry: A path or s3://bucket/prefix; SLIPWAY_REGISTRY or ./registry when left out.

    Returns:
        What `slipway promote --json` prints.

    Raises:
        ConflictError: If somebody else moved the label, or a rule forbids it.
        SlipwayError: If anything else stands in the way.
    """
    opened = Registry.open(registry)
    expected = Expect.ANYTHING if expect is None else None if expect == "none" else expect
    record = promote_task(opened, model, version, label, expected, Origin.here(reason, this_run()))
    asked = Transition("promote", label, from_version=version, to_version=version)
    change = change_document(opened.store.uri, model, record, asked=asked)
    logger.info(change_sentence(change))
    leave_labels(opened, change)
    return change
