"""What a flow run leaves in Prefect: tables, links, a page on a rollout, and events of labels.

A Prefect API that fails here changes nothing of what was published, rejected or moved: it is warned of.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.changes import change_sentence
from flows.label_events import emit_label_moved
from flows.package_report import PackageReport
from flows.rollout_artifact import page
from model_registry.registry import Registry
from model_registry.rollout.report import RolloutReport
from tasks.scan_rules import FolderOutcome

logger = logging.getLogger("slipway")


def leave_artifacts(report: PackageReport) -> PackageReport:
    """Creates the artifacts of a packaging and returns the report as it came."""
    with _warning():
        _create(report)
    return report


def leave_labels(registry: Registry, change: Mapping[str, Any]) -> None:
    """Creates the artifact of a label that was moved: what moved, and which label names which version now.

    The event `slipway.label.moved` is emitted first (flows.label_events).

    Args:
        registry: Where it was moved.
        change: As flows.changes tells it.
    """
    emit_label_moved(change)
    with _warning():
        model: str = change["model"]
        state = registry.state(model)
        create_table_artifact(
            key=f"{_key(model)}-labels",
            table=[
                {"label": label, "version": version, "rolls back to": (state.pasts[label].versions or ("nothing",))[-1]}
                for label, version in state.labels.items()
            ],
            description=change_sentence(change),
        )


def leave_new_models(trained: str, outcomes: Sequence[FolderOutcome]) -> None:
    """Creates the artifact of a scan: what became of each folder.

    Args:
        trained: The folder of all folders.
        outcomes: Of each.
    """
    with _warning():
        create_table_artifact(
            key="new-models",
            table=[
                {
                    "folder": outcome.folder,
                    "verdict": outcome.verdict,
                    "model": outcome.model,
                    "version": outcome.version or "",
                    "flow run": outcome.run,
                    "reason": outcome.reason,
                }
                for outcome in outcomes
            ],
            description=f"Trained models in {trained}",
        )


def leave_rollout(report: RolloutReport) -> None:
    """Creates the artifact of a rollout: its verdict, the numbers of each look, and a plot."""
    with _warning():
        create_markdown_artifact(
            key=f"{_key(report.model)}-rollout",
            markdown=page(report),
            description=f"Rollout of {report.model}:{report.version}: {report.outcome or 'under way'}",
        )


@contextmanager
def _warning() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever Prefect raises, the outcome stands
        logger.warning("the artifacts of this run could not be left in Prefect: %s: %s", type(error).__name__, error)


def _key(model: str) -> str:
    # One key a model, so that Prefect shows each model's artifacts as a series.
    return re.sub("[^a-z0-9]+", "-", model.lower()).strip("-")


def _create(report: PackageReport) -> None:
    key = _key(report.model)
    name = f"{report.model}:{report.version}" if report.version else f"{report.model} (rejected)"
    create_table_artifact(
        key=f"{key}-stages",
        table=[{"stage": item.stage, "seconds": round(item.seconds, 2)} for item in report.stages],
        description=f"Stages of {name}" + (", which was there already" if report.reused else ""),
    )
    create_table_artifact(
        key=f"{key}-checks",
        table=[
            {
                "check": check.check,
                "variant": check.variant,
                "measured": str(check.measured),
                "threshold": str(check.threshold),
                "verdict": "passed" if check.passed else "FAILED",
                "detail": check.detail,
            }
            for check in report.checks
        ],
        description=f"Checks of {name}: {report.verdict}",
    )
    if report.uri:
        link = report.uri if "://" in report.uri else f"file://{report.uri}"
        about = f"Registry {report.registry}"
        create_link_artifact(key=f"{key}-version", link=link, link_text=name, description=about)
