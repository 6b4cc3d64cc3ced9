"""Whether an agent's server answers with what a label was moved to, as far as the agent's report tells. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport


@dataclass(frozen=True)
class AwaitedLabel:
    """A label, and what every server shall answer under it.

    Attributes:
        model: Whose label.
        label: Its name.
        version: What it names.
        revision: Of the registry's state since which it does, or a later one at which it still did.
    """

    model: str
    label: str
    version: int
    revision: int

    def __str__(self) -> str:
        return f"{self.model}@{self.label}"


@dataclass(frozen=True)
class Standing:
    """Where one server stands on the way.

    Attributes:
        state: `serving` what was asked for; `waiting` for it; `failed`, and not tried again unless somebody asks;
            `moved`, since the registry told the agent of another version under the label.
        words: The same for a person, without the agent's name.
    """

    state: Literal["serving", "waiting", "failed", "moved"]
    words: str


def standing(report: AgentReport, awaited: AwaitedLabel) -> Standing:
    """Where an agent's server stands."""
    model = report.models.get(awaited.model, ModelReport())
    version = model.version(awaited.version)
    named = f"{awaited.model}:{awaited.version}"
    if model.revision < awaited.revision:
        if why := report.registry_problem or model.problem:
            return Standing("waiting", f"cannot read the registry: {why}")
        return Standing("waiting", f"has not read revision {awaited.revision} of the registry yet")
    if model.wanted.get(awaited.label) != awaited.version:
        found = model.wanted.get(awaited.label)
        return Standing("moved", f"is told that {awaited} names {f'{awaited.model}:{found}' if found else 'nothing'}")
    if version and version.differs:
        return Standing("failed", f"{named} {version.why}")
    if report.server_reachable and model.serving.get(awaited.label) == awaited.version:
        return Standing("serving", f"answers {awaited.label} with {named}")
    if version and version.state == "FAILED":
        return _failed(version, named)
    if report.disk_problem:
        return Standing("waiting", f"cannot keep up {report.destination}: {report.disk_problem}")
    if not report.server_reachable:
        return Standing("waiting", f"its server at {report.server} does not answer")
    if version is None:
        return Standing("waiting", f"{named} {model.problem or 'WAITING'}")
    if version.state == "AVAILABLE":
        before = model.serving.get(awaited.label)
        still = f"{awaited.label} still answers with {awaited.model}:{before}" if before else f"{awaited.label} follows"
        return Standing("waiting", f"{named} AVAILABLE, {still}")
    return Standing("waiting", f"{named} {version.state}{f': {version.why}' if version.why else ''}")


def given_up(report: AgentReport, model: str, version: int) -> VersionReport | None:
    """A version whose load failed there, and that is not tried again even though a label names it; else None."""
    known = report.models.get(model, ModelReport())
    found = known.version(version)
    if found and found.state == "FAILED" and found.gave_up and version in known.wanted.values():
        return found
    return None


def follows(report: AgentReport, model: str, label: str) -> bool:
    """Whether an agent brings what this label of this model names to its server."""
    models, labels = report.follows_models, report.follows_labels
    return (not models or model in models) and (not labels or label in labels)


def _failed(version: VersionReport, named: str) -> Standing:
    if version.gave_up:
        return Standing("failed", f"{named} FAILED: {version.why}")
    return Standing("waiting", f"{named} FAILED, and is tried again: {version.why}")
