"""When an agent has nothing left to do: all is as the registry wants it, or what is not can only be left as it is."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from model_registry.serving.sync.sync_report import AgentReport, ModelReport

_MOVING = ("WAITING", "DOWNLOADING", "READY", "LOADING", "LEAVING")
_PATIENCE = 30.0  # seconds that the server, the registry or the disk may be away before no more is expected of it


class LookingAgent(Protocol):
    """An agent, a look at a time."""

    def tick(self) -> None:
        """Looks once."""

    def wait(self, stop: threading.Event) -> None:
        """Waits until the next look is due."""

    def report(self) -> AgentReport:
        """How things stand."""


def settle(agent: LookingAgent, stop: threading.Event) -> AgentReport:
    """Looks until nothing is left to do or can be done, or it is to stop; tells how things stand then."""
    worked = time.monotonic()
    while True:
        agent.tick()
        report, now = agent.report(), time.monotonic()
        works = report.server_reachable and _is_known(report) and not report.disk_problem
        worked = now if works else worked
        if stop.is_set() or now - worked > _PATIENCE or (works and is_over(report)):
            return report
        agent.wait(stop)


def is_well(report: AgentReport) -> bool:
    """Whether all is as the registry wants it now, and everything that tells so could be asked."""
    return report.settled and _is_known(report) and not report.disk_problem


def is_moving(report: AgentReport) -> bool:
    """Whether anything is on its way in or out, a label has still to follow, or the server has to come back."""
    if report.disk_problem:  # until there is room nothing moves
        return False
    return not report.server_reachable or not all(
        _is_still(model, known=not (report.registry_problem or model.problem)) for model in report.models.values()
    )


def is_over(report: AgentReport) -> bool:
    """Whether every model is as it should be, or has failed."""
    return all(_is_over(model) for model in report.models.values())


def _is_known(report: AgentReport) -> bool:
    return report.registry_age is not None and not report.registry_problem


def _is_over(model: ModelReport) -> bool:
    return bool(model.problem) or _is_still(model, known=True)


def _is_still(model: ModelReport, *, known: bool) -> bool:
    """Whether nothing of it can move by itself; what is to leave stays where it is not `known` what is wanted."""
    states = {version.state for version in model.versions} - ({"LEAVING"} if not known else set())
    if not states.isdisjoint(_MOVING):
        return False
    missing = {version for label, version in model.wanted.items() if model.serving.get(label) != version}
    failed = {version.version for version in model.versions if version.state == "FAILED"}
    leaving = known and not model.serving.keys() <= model.wanted.keys()
    return missing <= failed and (bool(missing) or not leaving)
