"""fleet.yaml: which fleets of servers there are, what each follows, and what each gets. Pure.

A fleet is a number of like servers, each with an agent that follows the same labels. The gateway reads here whom to
send requests to, `slipway render kubernetes` what to run.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from model_registry.servable import NATIVE
from model_registry.spec_errors import refused
from model_registry.state import Label

# What a Service, a Deployment and a host may be called (RFC 1123); shorter, since names of parts are made of it.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]
Port = Annotated[int, Field(ge=1, le=65_535)]
# Quantities as Kubernetes writes them: bytes, and CPUs or thousandths of one.
Memory = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,9}(Mi|Gi|Ti)$")]
Cpu = Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,3}(\.[0-9]{1,3})?|0\.[0-9]{1,3}|[1-9][0-9]{0,6}m)$")]
Percent = Annotated[int, Field(ge=1, le=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Strict):
    """Where one server answers, or all of a fleet under one name.

    Attributes:
        host: A name or an IPv4 address; a name that has several addresses stands for as many servers.
        grpc: Its gRPC port.
        rest: Its REST port.
    """

    host: Host
    grpc: Port = 8500
    rest: Port = 8501


class Replicas(_Strict):
    """How many servers a fleet has.

    Attributes:
        min: At least.
        max: At most; as many as `min` where left out, and nothing scales then.
        latency: Seconds of p99 that more servers are started above; None for none.
        gpu_utilization: Percent of the GPUs' time that more are started above; None for none.
    """

    min: Annotated[int, Field(ge=1, le=1_000)] = 2
    max: Annotated[int, Field(ge=1, le=1_000)] | None = None
    latency: Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)] | None = None
    gpu_utilization: Percent | None = None

    @model_validator(mode="after")
    def _ascending(self) -> Replicas:
        if self.max is not None and self.max < self.min:
            raise refused(f"max is {self.max} and min {self.min}: expected at least as many")
        if self.max in (None, self.min) and (self.latency or self.gpu_utilization):
            raise refused("`latency` and `gpu_utilization` tell when to start more servers: expected `max` above `min`")
        return self


class Gpu(_Strict):
    """What each server of a fleet gets of GPUs. A server uses one: for several GPUs, several servers or fleets.

    Attributes:
        resource: As the device plug-in calls it; `nvidia.com/gpu.shared` where it shares by time slices.
        memory_fraction: Of the GPU's memory that the server takes at most; None for as it needs.
        product: The node's label `nvidia.com/gpu.product`; empty for any.
        shared: A name for one GPU that fleets share, whose fractions together are at most 1; empty for one of its own.
    """

    resource: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,63}/[a-z0-9._-]{1,63}$")] = "nvidia.com/gpu"
    memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    product: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$")] = ""
    shared: Annotated[str, StringConstraints(pattern=r"^([a-z]([a-z0-9-]{0,38}[a-z0-9])?)?$")] = ""


class Fleet(_Strict):
    """Like servers.

    Attributes:
        labels: What their agents follow; the fleet's own name where left out. With two labels that a rollout is
            between, one fleet serves both versions.
        models: Which models; all where empty.
        variants: What the agents bring of a version, the first that it has.
        servers: Where a gateway reaches them; in Kubernetes their Service where left out.
        replicas: How many there are.
        cpu: Of each.
        memory: Of each. While a label moves, two versions of its model are loaded.
        gpu: Of each; None for none.
        batching: Whether requests that wait are merged.
    """

    labels: tuple[Label, ...] = ()
    models: tuple[ModelName, ...] = ()
    variants: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")], ...] = (NATIVE,)
    servers: tuple[Server, ...] = ()
    replicas: Replicas = Field(default_factory=Replicas)
    cpu: Cpu = "2"
    memory: Memory = "4Gi"
    gpu: Gpu | None = None
    batching: bool = False

    def serves(self, model: str) -> bool:
        """Whether a model is among its own."""
        return not self.models or model in self.models


class Gateway(_Strict):
    """The Envoys that share requests between fleets.

    Attributes:
        replicas: How many.
        rest: The port they take REST requests at.
        grpc: And gRPC.
        admin: Of Envoy's own interface, which listens on the loopback address only.
        stable: The label whose fleet gets what the canary does not.
        canary: The label whose fleet gets what a rollout says.
        timeout: Seconds that a request may take.
    """

    replicas: Annotated[int, Field(ge=1, le=1_000)] = 2
    rest: Port = 8080
    grpc: Port = 8081
    admin: Port = 9901
    stable: Label = "stable"
    canary: Label = "canary"
    timeout: Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)] = 60.0


class FleetFile(_Strict):
    """A fleet.yaml.

    Attributes:
        registry: Where the agents read; --registry, else SLIPWAY_REGISTRY, where left out.
        fleets: By name.
        gateway: What shares requests between them.
    """

    registry: Annotated[str, StringConstraints(min_length=1, max_length=1_024)] | None = None
    fleets: Annotated[dict[Name, Fleet], Field(min_length=1, max_length=100)]
    gateway: Gateway = Field(default_factory=Gateway)

    @model_validator(mode="after")
    def _consistent(self) -> FleetFile:
        if self.gateway.stable == self.gateway.canary:
            raise refused(f"gateway: `stable` and `canary` are both {self.gateway.stable!r}: expected two labels")
        fractions: dict[str, float] = {}
        for name, fleet in self.fleets.items():
            if fleet.gpu and fleet.gpu.shared:
                if fleet.gpu.memory_fraction is None:
                    raise refused(f"fleets.{name}.gpu shares {fleet.gpu.shared!r}: expected a `memory_fraction`")
                fractions[fleet.gpu.shared] = fractions.get(fleet.gpu.shared, 0.0) + fleet.gpu.memory_fraction
        for shared, total in fractions.items():
            if total > 1 + 1e-9:
                raise refused(f"the fleets that share GPU {shared!r} take {total:g} of its memory: expected at most 1")
        return self

    def labels(self, name: str) -> tuple[str, ...]:
        """What the agents of a fleet follow."""
        return self.fleets[name].labels or (name,)

    def fleets_of(self, model: str, label: str) -> tuple[str, ...]:
        """The fleets that serve what a label of a model names."""
        return tuple(name for name, fleet in self.fleets.items() if fleet.serves(model) and label in self.labels(name))
