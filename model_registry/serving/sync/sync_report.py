"""What a sync agent tells of itself: what it wants, what its server does, and what stands in the way.

`/status` answers with it, `promote --wait` reads it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from model_registry.documents import SCHEMA_VERSION, read
from model_registry.errors import ConflictError, NotFoundError
from model_registry.servable import Version
from model_registry.state import Label, Revision

VersionState = Literal["WAITING", "DOWNLOADING", "READY", "LOADING", "AVAILABLE", "LEAVING", "FAILED"]


@dataclass(frozen=True)
class VersionReport:
    """One version of a model, beside one server.

    Attributes:
        version: Its number.
        state: `WAITING` to be downloaded; `DOWNLOADING`; `READY` on this disk, its turn to be loaded has not come;
            `LOADING` or `AVAILABLE` in the server; `LEAVING` it, since no label names it any more; `FAILED` to be
            downloaded or loaded.
        variant: Which of its variants is on this disk; empty before that is chosen.
        why: What it failed of, or waits for; empty otherwise.
        gave_up: Whether a failed load is not tried again until somebody asks.
        differs: Whether what lies here under the number is not what the registry has under it; `why` tells more.
    """

    version: Version
    state: VersionState
    variant: str = ""
    why: str = ""
    gave_up: bool = False
    differs: bool = False


@dataclass(frozen=True)
class ModelReport:
    """One model, beside one server.

    Attributes:
        revision: Of the registry's state that was read last; 0 before the first.
        wanted: The version that each label names in the registry, of the labels that this agent follows.
        serving: The version that the server answers with under each label, as it was seen last.
        versions: Every version that is wanted, loaded or on its way, ascending.
        problem: Why the model as a whole stands still, such as a state that cannot be read; empty if it does not.
        disk_problem: What of it could not be looked at or removed in the directory; empty if all could.
    """

    revision: Revision = 0
    wanted: dict[Label, Version] = field(default_factory=dict)
    serving: dict[Label, Version] = field(default_factory=dict)
    versions: tuple[VersionReport, ...] = ()
    problem: str = ""
    disk_problem: str = ""

    @property
    def settled(self) -> bool:
        """Whether the server answers as the registry wants it, and with the bytes that the registry has."""
        return not self.problem and self.serving == self.wanted and not any(one.differs for one in self.versions)

    def version(self, number: int) -> VersionReport | None:
        """The report of a version, or None."""
        return next((found for found in self.versions if found.version == number), None)


@dataclass(frozen=True)
class AgentReport:
    """One agent.

    Attributes:
        agent: Its name.
        registry: The URI of the registry it follows.
        destination: The directory it fills.
        server: The REST URL of its server.
        follows_models: The models it follows; empty for all.
        follows_labels: The labels it follows; empty for all.
        server_reachable: Whether that answered when it was asked last.
        ready: Whether it is fit for requests, as /readyz says; None before the first look.
        registry_age: Seconds since the registry was read last; None before the first time.
        registry_problem: Why it cannot be read; empty if it can.
        disk_problem: Why the directory could not be written or looked at when that was tried last; empty if it could.
        models: By name.
    """

    agent: str
    registry: str
    destination: str
    server: str
    follows_models: tuple[str, ...] = ()
    follows_labels: tuple[Label, ...] = ()
    server_reachable: bool = False
    ready: bool | None = None
    registry_age: float | None = None
    registry_problem: str = ""
    disk_problem: str = ""
    models: dict[str, ModelReport] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def settled(self) -> bool:
        """Whether every model's server answers as the registry wants it, as far as is known."""
        return self.server_reachable and all(model.settled for model in self.models.values())

    def obstacles(self) -> tuple[str, ...]:
        """What stands between what the registry wants and what the server does, each in a few words."""
        found = []
        if self.registry_problem:
            found.append(f"the registry cannot be read: {self.registry_problem}")
        elif self.registry_age is None:
            found.append("the registry has not been read yet")
        if self.disk_problem:
            found.append(f"the directory cannot be kept up: {self.disk_problem}")
        if not self.server_reachable:
            found.append(f"the server at {self.server} does not answer")
        for name, model in sorted(self.models.items()):
            if model.problem:
                found.append(f"{name}: {model.problem}")
            if model.disk_problem:
                found.append(f"{name}: {model.disk_problem}")
            for label in sorted({*model.wanted, *model.serving}):
                wanted, serving = model.wanted.get(label), model.serving.get(label)
                if wanted != serving:
                    found.append(f"{name}@{label} answers with {serving or 'nothing'}, wanted is {wanted or 'nothing'}")
            found += [f"{name}:{one.version} failed: {one.why}" for one in model.versions if one.state == "FAILED"]
            found += [f"{name}:{one.version} {one.why}" for one in model.versions if one.differs]
        return tuple(found)

    def require_failed(self, model: str, version: int) -> None:
        """Holds a retry to what can be tried again.

        Raises:
            NotFoundError: If the agent knows no such model or version.
            ConflictError: If it did not fail.
        """
        if model not in self.models:
            raise NotFoundError(f"this agent has no model {model!r}: its models are {', '.join(sorted(self.models))}")
        found = self.models[model].version(version)
        if found is None:
            there = ", ".join(str(one.version) for one in self.models[model].versions) or "none"
            raise NotFoundError(f"this agent has no {model}:{version}: its versions are {there}")
        if found.state != "FAILED":
            raise ConflictError(f"{model}:{version} did not fail: it is {found.state}")

    def to_json(self) -> bytes:
        """The document that `/status` answers with."""
        return _ADAPTER.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, url: str) -> AgentReport:
        """Reads such a document.

        Raises:
            FormatError: If it is none, or one of a newer Slipway.
        """
        return read(_ADAPTER, data, key=url, what="an agent's status")


_ADAPTER = TypeAdapter(AgentReport)
