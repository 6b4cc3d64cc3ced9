"""What an agent lets others see of itself, between two looks. Thread-safe."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace

from model_registry.serving.sync.sync_events import events
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport

log = logging.getLogger("slipway")


class PublishedReport:
    """Of one agent."""

    def __init__(self, report: AgentReport, metrics: SyncMetrics, *, first: bool) -> None:
        """Begins.

        Args:
            report: Before the first look.
            metrics: Are told what each look shows.
            first: Whether no version was ever AVAILABLE in this directory.
        """
        self._metrics = metrics
        self._lock = threading.Lock()
        self._report = report
        self._first = first

    @property
    def report(self) -> AgentReport:
        """The last one."""
        with self._lock:
            return self._report

    def publish(self, report: AgentReport, counted_on: Mapping[str, Collection[str]]) -> None:
        """Replaces it, and tells what happened since.

        Args:
            report: The new one, but for `ready`.
            counted_on: The labels under which the server is to answer, by model: it did before.
        """
        before = self._report
        report = replace(report, ready=is_ready(report, counted_on, first=self._first))
        for level, line in events(before, report):
            log.log(level, "%s", line)
        for name, model in report.models.items():
            for _ in _failed_loads(before.models.get(name, ModelReport()), model):
                self._metrics.failed(name, "load")
        with self._lock:
            self._report = report
        self._first = self._first and not report.ready
        self._metrics.observe(report)


def _failed_loads(before: ModelReport, after: ModelReport) -> list[VersionReport]:
    """The versions whose load failed between two reports.

    A load is reported before its failure. What is reported as failed from the first on was remembered: were it counted,
    an agent that is restarted would seem to load it again and again.
    """
    awaited = {one.version for one in before.versions if not one.gave_up}
    return [one for one in after.versions if one.gave_up and one.version in awaited]


def is_ready(report: AgentReport, counted_on: Mapping[str, Collection[str]], *, first: bool) -> bool:
    """Whether a server is fit for requests: it answers under at least one label, and under all that it did before.

    A label that is new, or whose new version cannot be served, takes nothing away from it. Only the very first time,
    when there is no before, it is to answer under all that are wanted, but those whose version has failed.

    Args:
        report: How things stand.
        counted_on: The labels under which the server is to answer, by model: it did before.
        first: Whether it is the very first time.
    """
    if not report.server_reachable or not any(model.serving for model in report.models.values()):
        return False
    if first and report.registry_age is None:
        return False
    return all(
        {*counted_on.get(name, ()), *(_hoped_for(model) if first else ())} <= model.serving.keys()
        for name, model in report.models.items()
    )


def _hoped_for(model: ModelReport) -> set[str]:
    failed = {one.version for one in model.versions if one.state == "FAILED"}
    return {label for label, version in model.wanted.items() if version not in failed}
