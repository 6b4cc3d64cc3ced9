"""Which requests a gateway sends where: from the models' states and the fleets to a table. Pure.

A request that leaves the choice to the gateway is shared between two labels, `stable` and `canary` as fleet.yaml calls
them, by the weight of the rollout that is under way. What another label names gets what asks for it by name.

REST says in its path which label is meant, so it is shared whatever the fleets are. A gRPC request says it in its
body, which no gateway reads: it is shared between servers, and a server that is asked for no version answers with the
highest it has. So gRPC is shared where the servers of either side follow its label alone. Where they do not, as with
one fleet for both labels, all of it goes to stable's servers, and `ModelRoute.shares_grpc` is False. What these answer
with is then the candidate, from the moment that it is loaded, whatever the weight: `RoutingTable.notices` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from model_registry.serving.fleet import FleetFile, Server
from model_registry.state import State


@dataclass(frozen=True)
class Side:
    """A label of a model, and who answers for it.

    Attributes:
        label: The label.
        version: What it names.
        servers: Where it is served, in fleet.yaml's order; at least one.
        alone: Whether these servers follow no other label that the model has: whatever they answer, unless asked for
            something else by name, is of this version.
    """

    label: str
    version: int
    servers: tuple[Server, ...]
    alone: bool = True


@dataclass(frozen=True)
class ModelRoute:
    """How the requests for a model are shared.

    Attributes:
        model: Its name.
        revision: Of the state that this follows from.
        stable: Who gets what canary does not.
        canary: Who gets `weight` percent; None where its label names nothing, or no fleet serves it.
        weight: Percent of the requests that go to canary; 0 where that is None.
        others: Who serves its other labels, sorted by label.
    """

    model: str
    revision: int
    stable: Side
    canary: Side | None = None
    weight: int = 0
    others: tuple[Side, ...] = ()

    @property
    def sides(self) -> tuple[Side, ...]:
        """All of them, stable first."""
        return (self.stable, *([self.canary] if self.canary else []), *self.others)

    @property
    def shares_grpc(self) -> bool:
        """Whether gRPC can be shared between stable and canary; else all of it goes to stable's servers."""
        return self.canary is not None and self.stable.alone and self.canary.alone

    @property
    def grpc_weight(self) -> int:
        """Percent of the gRPC requests that go to canary's servers."""
        return self.weight if self.shares_grpc else 0


@dataclass(frozen=True)
class RoutingTable:
    """What a gateway is to do.

    Attributes:
        models: By name, sorted.
        problems: By model, what keeps it from being routed as its state says, in words; whoever has one may still be
            among `models`, and is then routed as far as it can be.
        notices: By model, what is worth knowing of it, in words, and keeps it from nothing.
        unrouted: The models that are to have no route: stable names nothing of them, or no fleet serves it.
    """

    models: tuple[ModelRoute, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    notices: Mapping[str, str] = field(default_factory=dict)
    unrouted: frozenset[str] = frozenset()

    def route(self, model: str) -> ModelRoute | None:
        """How a model's requests are shared; None if the table has none of it."""
        return next((route for route in self.models if route.model == model), None)

    def without_canary(self, models: Collection[str]) -> RoutingTable:
        """The same, but that the canary of some models gets no requests."""
        return replace(
            self, models=tuple(replace(one, weight=0) if one.model in models else one for one in self.models)
        )


def routing_table(states: Mapping[str, State], file: FleetFile) -> RoutingTable:
    """What a gateway is to do.

    Args:
        states: The models' states, by name. Models that no fleet serves are none of this gateway's, and are left out
            without a word; so are those that have no label any more, and those that never had one and that no fleet
            names.
        file: Which fleets there are, and which labels requests are shared between.
    """
    routes: list[ModelRoute] = []
    problems: dict[str, str] = {}
    notices: dict[str, str] = {}
    unrouted: set[str] = set()
    for model in sorted(states):
        state = states[model]
        if not any(fleet.serves(model) for fleet in file.fleets.values()):
            continue
        if file.gateway.stable not in state.labels or not file.fleets_of(model, file.gateway.stable):
            unrouted.add(model)
        if not state.labels:
            if not state.revision and any(model in fleet.models for fleet in file.fleets.values()):
                problems[model] = "it has no label yet: promote a version"
            continue
        route, problem = _route(model, state, file)
        if route is not None:
            routes.append(route)
            if notice := _grpc_notice(route, state, file):
                notices[model] = notice
        if problem:
            problems[model] = problem
    return RoutingTable(tuple(routes), problems, notices, frozenset(unrouted))


def _route(model: str, state: State, file: FleetFile) -> tuple[ModelRoute | None, str]:
    gateway = file.gateway
    stable, why = _side(model, state, gateway.stable, file)
    if stable is None:
        return None, f"it has no route: {why}"
    canary, why = _side(model, state, gateway.canary, file)
    named = sorted(state.labels.keys() - {gateway.stable, gateway.canary})
    others = tuple(side for side, _ in (_side(model, state, label, file) for label in named) if side is not None)
    traffic, weight, problem = state.traffic, 0, ""
    if traffic is not None and (traffic.stable, traffic.canary) != (gateway.stable, gateway.canary):
        problem = (
            f"its rollout is between labels {traffic.stable!r} and {traffic.canary!r}, and this gateway shares between "
            f"{gateway.stable!r} and {gateway.canary!r}: all of its requests go to {gateway.stable!r}"
        )
    elif traffic is not None and canary is None:
        problem = f"all of its requests go to {gateway.stable!r}: {why}"
    elif traffic is not None:
        weight = traffic.weight
    return ModelRoute(model, state.revision, stable, canary, weight, others), problem


def _side(model: str, state: State, label: str, file: FleetFile) -> tuple[Side | None, str]:
    """Who answers for a label; where nobody does, why."""
    version = state.labels.get(label)
    if version is None:
        return None, f"it has no label {label!r}, but {', '.join(sorted(state.labels))}"
    fleets = file.fleets_of(model, label)
    if not fleets:
        return None, f"no fleet serves its label {label!r}"
    servers = tuple(dict.fromkeys(server for name in fleets for server in file.fleets[name].servers))
    if not servers:
        return None, f"fleet.yaml names no servers of {' and '.join(fleets)}, which serve its label {label!r}"
    return Side(label, version, servers, _followed(model, state, servers, file) == {label}), ""


def _followed(model: str, state: State, servers: tuple[Server, ...], file: FleetFile) -> set[str]:
    """The labels of a model that any of some servers follows."""
    return {
        label
        for name, fleet in file.fleets.items()
        if fleet.serves(model) and not {*servers}.isdisjoint(fleet.servers)
        for label in file.labels(name)
        if label in state.labels
    }


def _grpc_notice(route: ModelRoute, state: State, file: FleetFile) -> str:
    """What becomes of gRPC where it is not what becomes of REST; empty where it is."""
    stable = _followed(route.model, state, route.stable.servers, file)
    if len({state.labels[label] for label in stable}) > 1:
        return (
            f"gRPC is not shared: its servers answer with the highest version they have, and follow the labels "
            f"{', '.join(sorted(stable))}; a fleet with servers of its own for each label lets it be shared"
        )
    if route.weight and not route.shares_grpc:
        return (
            f"gRPC is not shared: all of it goes to {route.stable.label!r}, since the servers of "
            f"{file.gateway.canary!r} follow other labels, too"
        )
    return ""
