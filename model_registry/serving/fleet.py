"""fleet.yaml: which fleets of servers there are, what each follows, and what each gets. Pure.

A fleet is a number of like servers, each with an agent that follows the same labels. The gateway reads here whom to
send requests to, `slipway render kubernetes` what to run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from model_registry.errors import InvalidInputError
from model_registry.paths import check_label, check_model_name
from model_registry.servable import NATIVE
from model_registry.spec_errors import expected, refused
from model_registry.spec_signatures import Form

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h)")
_MOST = 100
_MEMORY = {"Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def _matching(pattern: str, what: str) -> AfterValidator:
    whole = re.compile(pattern)

    def check(text: str) -> str:
        if not whole.fullmatch(text):
            raise expected(what)
        return text

    return AfterValidator(check)


def _some(what: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if not 1 <= len(value) <= _MOST:
            raise expected(f"at least {what}, and at most {_MOST}")
        return value

    return AfterValidator(check)


def _by_the_registry(check: Callable[[str], str]) -> AfterValidator:
    """Holds a name against the registry's own rule, whose hint speaks of another file."""

    def checked(text: str) -> str:
        try:
            return check(text)
        except InvalidInputError as error:
            raise refused(error.message) from None

    return AfterValidator(checked)


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        if not found:
            raise expected("seconds, or a duration such as 250ms, 30s or 5m")
        return float(found[1]) * _UNITS[found[2]]
    return value


# What a Service, a Deployment and a host may be called (RFC 1123); shorter, since names of parts are made of it.
_NAME = r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?"
_NAME_RULE = "1 to 40 lower-case letters, digits and '-', beginning with a letter and not ending with '-'"
Name = Annotated[str, _matching(_NAME, _NAME_RULE)]
ModelName = Annotated[str, _by_the_registry(check_model_name)]
Label = Annotated[str, _by_the_registry(check_label)]
# What the registry holds, not what can be asked for: `tensorrt-fp16-sm80`.
Variant = Annotated[str, _matching(r"[a-z0-9][a-z0-9-]{0,62}", f"a variant, such as {NATIVE} or tensorrt-fp16-sm80")]
Host = Annotated[str, _matching(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", "a host's name or IPv4 address")]
Port = Annotated[int, Field(strict=True, ge=1, le=65_535)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000)]
# Quantities as Kubernetes writes them: bytes, and CPUs or thousandths of one.
Memory = Annotated[str, _matching(r"[1-9][0-9]{0,9}(Mi|Gi|Ti)", "a size such as 512Mi or 4Gi")]
Cpu = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value),
    _matching(r"[1-9][0-9]{0,3}(\.[0-9]{1,3})?|0\.(?!0+$)[0-9]{1,3}|[1-9][0-9]{0,6}m", "CPUs such as 2, 0.5 or 500m"),
]
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/: of a label's value, and a resource's name.
_PRODUCT = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
_RESOURCE = r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?"
Percent = Annotated[int, Field(strict=True, ge=1, le=100)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=3_600, allow_inf_nan=False)]


class _Strict(Form):
    # Of the parts' own, not of all: a list of YAML is to become a tuple.
    model_config = ConfigDict(strict=False)


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
        latency: The p99 in seconds that more servers are started above; None for none.
        gpu_utilization: Percent of the GPUs' time that more are started above; None for none. Whichever of the two
            asks for more servers wins.
    """

    min: Count = 2
    max: Count | None = None
    latency: Seconds | None = None
    gpu_utilization: Percent | None = None

    @model_validator(mode="after")
    def _ascending(self) -> Replicas:
        if self.max is not None and self.max < self.min:
            raise refused(f"max is {self.max} and min {self.min}: expected at least as many")
        if self.max in (None, self.min) and (self.latency or self.gpu_utilization):
            raise refused("`latency` and `gpu_utilization` tell when to start more servers: expected `max` above `min`")
        if self.scales and not (self.latency or self.gpu_utilization):
            raise refused(
                f"max is {self.max} and min {self.min}: expected `latency` or `gpu_utilization`, when to start more"
            )
        return self

    @property
    def scales(self) -> bool:
        """Whether their number follows what they have to do."""
        return self.max is not None and self.max > self.min


class Gpu(_Strict):
    """What each server of a fleet gets of GPUs. A server uses one: for several GPUs, several servers or fleets.

    Attributes:
        resource: As the device plug-in calls it; `nvidia.com/gpu.shared` where it shares by time slices.
        memory_fraction: Of the GPU's memory that the server takes at most; None for as it needs.
        product: The node's label `nvidia.com/gpu.product`; empty for any.
        shared: A name for one GPU that fleets share, whose fractions together are at most 1; empty for one of its own.
    """

    resource: Annotated[str, _matching(_RESOURCE, "a resource such as nvidia.com/gpu")] = "nvidia.com/gpu"
    memory_fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    product: Annotated[str, _matching(_PRODUCT, "a value of the label nvidia.com/gpu.product, such as Tesla-T4")] = ""
    shared: Annotated[str, _matching(f"({_NAME})?", _NAME_RULE)] = ""


class Fleet(_Strict):
    """Like servers.

    Attributes:
        labels: What their agents follow; the fleet's own name where left out. With two labels that a rollout is
            between, one fleet serves both versions.
        models: Which models; all where empty.
        variants: What the agents bring of a version, the first that it has.
        servers: Where a gateway reaches them; in Kubernetes their pods, where left out or named by the fleet's Service.
        replicas: How many there are.
        cpu: Of each.
        memory: Of each. While a label moves, two versions of its model are loaded.
        disk: For the versions that lie at each: those that labels name, one that is being brought, and one of each
            model that stays for a rollback.
        gpu: Of each; None for none.
        batching: Whether requests that wait are merged.
    """

    labels: tuple[Label, ...] = ()
    models: tuple[ModelName, ...] = ()
    variants: Annotated[tuple[Variant, ...], _some("one variant, such as native")] = (NATIVE,)
    servers: tuple[Server, ...] = ()
    replicas: Replicas = Field(default_factory=Replicas)
    cpu: Cpu = "2"
    memory: Memory = "4Gi"
    disk: Memory = "20Gi"
    gpu: Gpu | None = None
    batching: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _measurable(self) -> Fleet:
        if self.replicas.gpu_utilization is not None:
            if self.gpu is None:
                raise refused("`replicas.gpu_utilization` is set: expected a `gpu`, found none")
            if self.gpu.shared:
                # https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/gpu-sharing.html
                raise refused(
                    f"`replicas.gpu_utilization` is set, and the GPU is shared as {self.gpu.shared!r}: expected "
                    "`replicas.latency`, for DCGM does not tell which container a shared GPU works for"
                )
        for field in ("labels", "models", "variants"):
            values = getattr(self, field)
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise refused(f"`{field}` names {twice[0]!r} twice: expected each once")
        return self

    def serves(self, model: str) -> bool:
        """Whether a model is among its own."""
        return not self.models or model in self.models


class Gateway(_Strict):
    """The Envoys that share requests between fleets.

    Attributes:
        replicas: How many; 0 for none.
        rest: The port they take REST requests at.
        grpc: And gRPC.
        admin: Of Envoy's own interface, which listens on the loopback address only.
        metrics: Where Prometheus asks Envoy, and nothing but metrics are.
        stable: The label whose fleet gets what the canary does not.
        canary: The label whose fleet gets what a rollout says.
        timeout: Seconds that a request may take, 0.01 at least.
    """

    replicas: Annotated[int, Field(strict=True, ge=0, le=1_000)] = 2
    rest: Port = 8080
    grpc: Port = 8081
    admin: Port = 9901
    metrics: Port = 9902
    stable: Label = "stable"
    canary: Label = "canary"
    # Envoy is told milliseconds, and takes 0 of them for no limit at all.
    timeout: Annotated[Seconds, Field(ge=0.01)] = 60.0

    @model_validator(mode="after")
    def _distinct(self) -> Gateway:
        if self.stable == self.canary:
            raise refused(f"`stable` and `canary` are both {self.stable!r}: expected two labels")
        ports = (self.rest, self.grpc, self.admin, self.metrics)
        if len({*ports}) < len(ports):
            found = ", ".join(map(str, ports))
            raise refused(f"`rest`, `grpc`, `admin` and `metrics` are {found}: expected four ports")
        return self


class FleetFile(_Strict):
    """A fleet.yaml.

    Attributes:
        registry: Where the agents read; --registry, else SLIPWAY_REGISTRY, where left out.
        fleets: By name.
        gateway: What shares requests between them.
    """

    registry: Annotated[str, Field(min_length=1, max_length=1_024)] | None = None
    fleets: Annotated[dict[Name, Fleet], _some("one fleet, such as `stable: {}`")]
    gateway: Gateway = Field(default_factory=Gateway)

    @model_validator(mode="after")
    def _consistent(self) -> FleetFile:
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


def size_bytes(text: Memory) -> int:
    """The bytes that a quantity such as `4Gi` stands for."""
    return int(text[:-2]) * _MEMORY[text[-2:]]
