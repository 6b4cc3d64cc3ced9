"""What happened between two reports of an agent, in lines for its log. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport

_INFO, _WARNING = logging.INFO, logging.WARNING


def events(before: AgentReport, after: AgentReport) -> Iterator[tuple[int, str]]:
    """Yields a level and a line for each thing that happened; none where nothing did."""
    if after.disk_problem != before.disk_problem:
        yield (_WARNING, after.disk_problem) if after.disk_problem else (_INFO, f"{after.destination} is kept up again")
    for name, model in sorted(after.models.items()):
        yield from _of_model(name, before.models.get(name, ModelReport()), model)
    for name in sorted(before.models.keys() - after.models.keys()):
        yield _INFO, f"{name} is not followed any more"


def _of_model(name: str, before: ModelReport, after: ModelReport) -> Iterator[tuple[int, str]]:
    if after.problem != before.problem:
        yield (_WARNING, f"{name}: {after.problem}") if after.problem else (_INFO, f"{name}: all is well again")
    for label, version in sorted(after.wanted.items()):
        if before.wanted.get(label) != version and after.serving.get(label) != version:
            yield _INFO, f"{name}@{label} is to be {name}:{version}, since revision {after.revision}"
    for label in sorted({*before.wanted} - {*after.wanted}):
        yield _INFO, f"{name}@{label} is to go, since revision {after.revision}"
    for one in after.versions:
        yield from _of_version(f"{name}:{one.version}", before.version(one.version), one)
    for one in before.versions:
        if one.state in ("LOADING", "AVAILABLE", "LEAVING") and not after.version(one.version):
            yield _INFO, f"{name}:{one.version} has left the server"
    for label in sorted({*before.serving, *after.serving}):
        was, now = before.serving.get(label), after.serving.get(label)
        if now and was != now:
            yield _INFO, f"{name}@{label} answers with {name}:{now}" + (f", before with {name}:{was}" if was else "")


def _of_version(name: str, before: VersionReport | None, after: VersionReport) -> Iterator[tuple[int, str]]:
    was = (before.state, before.why) if before else ("", "")
    if was == (after.state, after.why):
        return
    if after.state == "FAILED":
        if was[0] != "FAILED" and after.gave_up:
            yield _WARNING, f"{name} failed to load and is not tried again until it is asked for: {after.why}"
    elif after.state == "LOADING" and was[0] != "LOADING":
        yield _INFO, f"{name} is to be loaded by the server"
    elif after.state == "LEAVING" and was[0] != "LEAVING":
        yield _INFO, f"{name} is to leave the server"
    elif after.state == "AVAILABLE" and was[0] != "AVAILABLE":
        yield _INFO, f"{name} is AVAILABLE"
    if after.why and after.state != "FAILED" and after.why != was[1]:
        yield _WARNING, f"{name}: {after.why}"
