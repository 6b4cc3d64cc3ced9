"""Roll a version out: give it requests in steps, judge it by what it does, promote it or take it back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import leave_labels, leave_rollout
from flows.flow_run import this_run
from flows.rollout_printing import failure, telling
from model_registry.registry import Registry
from model_registry.rollout.control_loop import TIMEOUT, Patience
from model_registry.rollout.driver import Driver
from model_registry.rollout.observation import Observer
from model_registry.rollout.prometheus import Prometheus
from model_registry.state import Origin
from model_registry.traffic import BAKE, STEPS, Margins, Plan

logger = logging.getLogger("slipway")
# Under a worker nobody else sets a level, and the looks would be dropped before they reach Prefect.
logger.setLevel(logger.level or logging.INFO)


@flow(name="roll-out-model", persist_result=False, validate_parameters=True)
def roll_out_model(  # noqa: PLR0913, PLR0917 - a parameter for each field of the form
    model: str,
    version: int | None = None,
    steps: tuple[int, ...] = STEPS,
    bake: float = BAKE,
    prometheus: str = "http://127.0.0.1:9090",
    http_config: Path | None = None,
    within: dict[str, str] | None = None,
    checks: tuple[str, ...] = (),
    error_rate_margin: float = Margins.error_rate,
    p50_margin: float = Margins.p50,
    p99_margin: float = Margins.p99,
    stable: str = "stable",
    canary: str = "canary",
    timeout: float = TIMEOUT,
    reason: str = "",
    registry: str | None = None,
) -> dict[str, Any]:
    """Lets a version take over from the one that a label names, in steps, as long as it is not worse.

    A run that Prefect starts again takes up its own rollout where it was.

    Args:
        model: The model's name.
        version: Which version is rolled out. Left out, the rollout that is under way is taken up, whoever led it.
        steps: Percent of the requests that it gets, ascending.
        bake: Seconds that each step is judged for at least.
        prometheus: The URL of the Prometheus that scrapes gateways and agents.
        http_config: A file on the worker that tells how to log in there, as promtool's --http.config.file.
        within: Only series with these labels, where Prometheus watches several fleets.
        checks: PromQL of your own; good if it has samples and none of them is 0.
        error_rate_margin: How many more of the requests may fail: 0.01 is one in a hundred.
        p50_margin: By how much longer the median may take, as a share of stable's.
        p99_margin: The same of the 99th percentile.
        stable: The label that is to name the version.
        canary: The label that names it meanwhile.
        timeout: Seconds that servers and gateways have for each step.
        reason: Why; `slipway history` shows it.
        registry: A path or s3://bucket/prefix; SLIPWAY_REGISTRY or ./registry when left out.

    Returns:
        What `slipway rollout --json` prints.

    Raises:
        RejectedError: If the version was worse; it has no requests any more.
        ConflictError: If somebody else took the rollout up or ended it, or a rule forbids it.
        SlipwayError: If it is paused for want of data or of servers, or anything else stands in the way.
    """
    opened = Registry.open(registry)

    def tell(change: Mapping[str, Any]) -> None:
        if change["label"] is not None:
            leave_labels(opened, change)

    driver = Driver(
        opened,
        Observer(Prometheus(prometheus, http_config=http_config), model, within=within or {}),
        model,
        origin=Origin.here(reason, this_run()),
        patience=Patience(timeout=timeout),
        told=telling(opened, model, tell),
    )
    if version is None:
        report = driver.resume()
    else:
        plan = Plan(tuple(steps), bake, Margins(error_rate_margin, p50_margin, p99_margin), tuple(checks))
        report = driver.begin(version, plan, stable=stable, canary=canary)
    leave_rollout(report)
    if error := failure(report):
        raise error
    return report.document()
