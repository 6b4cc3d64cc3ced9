"""What a flow run leaves for those who look at it in Prefect: a table of stages, one of checks, a link."""

from __future__ import annotations

import logging
import re

from prefect.artifacts import create_link_artifact, create_table_artifact

from flows.package_report import PackageReport

logger = logging.getLogger("slipway")


def leave_artifacts(report: PackageReport) -> PackageReport:
    """Creates the artifacts of a packaging and returns the report as it came.

    A Prefect API that fails here changes nothing of what was published or rejected: it is warned of.
    """
    try:
        _create(report)
    except Exception as error:  # noqa: BLE001 - whatever Prefect raises, the outcome stands
        logger.warning("the artifacts of this run could not be left in Prefect: %s: %s", type(error).__name__, error)
    return report


def _create(report: PackageReport) -> None:
    # One key a model, so that Prefect shows each model's artifacts as a series.
    key = re.sub("[^a-z0-9]+", "-", report.model.lower()).strip("-")
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
