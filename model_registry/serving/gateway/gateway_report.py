"""What a gateway's agent tells of itself: what is wanted, what is in force in Envoy, what stands in the way. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import TypeAdapter

from model_registry.documents import SCHEMA_VERSION, read
from model_registry.servable import Version
from model_registry.state import Revision
from model_registry.traffic import Percent


@dataclass(frozen=True)
class RoutedReport:
    """One model, at one gateway.

    Attributes:
        wanted_revision: Of the state that was read last; 0 where it has none.
        revision: Of the state whose routes are in force; None where Envoy shows none, or does not answer.
        unrouted: Whether it is to have no route: its state, which was read, gives stable no version, or the fleet file
            gives that no fleet.
        stable: The version that stable is to answer with; None where it is to have no route, or cannot have one.
        canary: The version that canary is to answer with; None for none.
        wanted_weight: Percent of the requests that are to go to canary.
        weight: Percent that do; None where Envoy shows no route, or does not answer.
        problem: Why it is not routed as its state says, or that state cannot be read; empty if nothing is wrong.
        notice: What is worth knowing of how it is routed, and holds nothing up; empty for nothing.
    """

    wanted_revision: Revision = 0
    revision: Revision | None = None
    unrouted: bool = False
    stable: Version | None = None
    canary: Version | None = None
    wanted_weight: Percent = 0
    weight: Percent | None = None
    problem: str = ""
    notice: str = ""

    @property
    def settled(self) -> bool:
        """Whether Envoy shares the requests as the registry wants it."""
        if self.problem:
            return False
        if self.stable is None:
            return self.revision is None
        return (self.revision, self.weight) == (self.wanted_revision, self.wanted_weight)


@dataclass(frozen=True)
class GatewayReport:
    """One agent.

    Attributes:
        agent: Its name.
        registry: The URI of the registry it follows.
        directory: What it fills.
        envoy: The URL of Envoy's admin interface.
        envoy_reachable: Whether that answered as Envoy does when it was asked last.
        ready: Whether Envoy is fit for requests, as /readyz says; None before the first look.
        envoy_problem: What is wrong with Envoy's answers, or what it refused; empty for nothing.
        registry_age: Seconds since the registry was read last; None before the first time.
        registry_problem: Why it cannot be read; empty if it can.
        disk_problem: Why the directory could not be written when that was tried last; empty if it could.
        models: By name.
    """

    agent: str
    registry: str
    directory: str
    envoy: str
    envoy_reachable: bool = False
    ready: bool | None = None
    envoy_problem: str = ""
    registry_age: float | None = None
    registry_problem: str = ""
    disk_problem: str = ""
    models: dict[str, RoutedReport] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def settled(self) -> bool:
        """Whether Envoy shares the requests of every model as the registry wants it, as far as is known."""
        return self.envoy_reachable and all(model.settled for model in self.models.values())

    @property
    def well(self) -> bool:
        """Whether it is so now, and everything that tells so could be asked."""
        return self.settled and not (self.envoy_problem or self.disk_problem) and self._knows_the_registry

    @property
    def _knows_the_registry(self) -> bool:
        return self.registry_age is not None and not self.registry_problem

    def obstacles(self) -> tuple[str, ...]:
        """What stands between what the registry wants and what Envoy does, each in a few words."""
        found = []
        if self.registry_problem:
            found.append(f"the registry cannot be read: {self.registry_problem}")
        elif self.registry_age is None:
            found.append("the registry has not been read yet")
        if self.disk_problem:
            found.append(f"the directory cannot be kept up: {self.disk_problem}")
        if self.envoy_problem:
            found.append(f"Envoy at {self.envoy}: {self.envoy_problem}")
        elif not self.envoy_reachable:
            found.append(f"Envoy at {self.envoy} does not answer")
        for name, model in sorted(self.models.items()):
            if model.problem:
                found.append(f"{name}: {model.problem}")
            elif self.envoy_reachable and not model.settled:
                found.append(f"{name}: {_difference(model)}")
        return tuple(found)

    def to_json(self) -> bytes:
        """The document that `/status` answers with."""
        return _ADAPTER.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, url: str) -> GatewayReport:
        """Reads such a document.

        Raises:
            FormatError: If it is none, or one of a newer Slipway.
        """
        return read(_ADAPTER, data, key=url, what="a gateway's status")


def _difference(model: RoutedReport) -> str:
    wanted = f"{model.wanted_weight} % to canary by revision {model.wanted_revision}" if model.stable else "no route"
    in_force = f"{model.weight} % by revision {model.revision}" if model.revision is not None else "no route"
    return f"in force is {in_force}, wanted is {wanted}"


_ADAPTER = TypeAdapter(GatewayReport)
