"""When an agent has nothing left to do: all is as the registry wants it, or what is not can only be left as it is."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from model_registry.serving.sync_report import AgentReport, ModelReport

_MOVING = ("WAITING", "DOWNLOADING", "READY", "LOADING", "LEAVING")
_SILENCE = 30.0  # seconds that a server may be silent before nothing more is expected of it


class LookingAgent(Protocol):
    """An agent, a look at a time."""

    def tick(self) -> None:
        """Looks once."""

    def wait(self, stop: threading.Event) -> None:
        """Waits until the next look is due."""

    def report(self) -> AgentReport:
        """How things stand."""


def settle(agent: LookingAgent, stop: threading.Event) -> AgentReport:
    """Looks until nothing is left to do, or it is to stop; tells how things stand then.

    Raises:
        StorageError: If the directory cannot be written.
    """
    answered = time.monotonic()
    while True:
        agent.tick()
        report, now = agent.report(), time.monotonic()
        answered = now if report.server_reachable else answered
        looked = report.registry_age is not None or report.registry_problem
        if stop.is_set() or now - answered > _SILENCE or (looked and report.server_reachable and is_over(report)):
            return report
        agent.wait(stop)


def is_moving(report: AgentReport) -> bool:
    """Whether anything is on its way in or out, or a label has still to follow."""
    return not report.settled or any(
        version.state in _MOVING for model in report.models.values() for version in model.versions
    )


def is_over(report: AgentReport) -> bool:
    """Whether every model is as it should be, or has failed."""
    return all(_is_over(model) for model in report.models.values())


def _is_over(model: ModelReport) -> bool:
    if model.problem:
        return True
    if any(version.state in _MOVING for version in model.versions):
        return False
    missing = {version for label, version in model.wanted.items() if model.serving.get(label) != version}
    failed = {version.version for version in model.versions if version.state == "FAILED"}
    return missing <= failed and (bool(missing) or model.settled)
