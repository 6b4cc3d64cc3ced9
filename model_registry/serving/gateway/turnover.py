"""Where a gateway's routes lead, and which clusters stay meanwhile: make before break. Pure.

A model's routes change only once Envoy has the clusters that they are to lead to, and the clusters of the routes before
stay until Envoy shows the new ones in force, and some seconds more for requests under way. What is remembered is
written before the routes are: so whenever an agent is killed, the next one knows all routes that may be in force,
whatever became of the registry or the fleet file meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter

from model_registry.documents import RESTORE, SCHEMA_VERSION, read
from model_registry.errors import FormatError
from model_registry.paths import check_model_name
from model_registry.serving.gateway.routing import ModelRoute, RoutingTable
from model_registry.serving.gateway.upstream_clusters import clusters_of
from model_registry.state import State

# Only where Envoy shows nothing for long, and the labels move again and again meanwhile, are there so many.
_MOST_LEAVING = 8

_REMOVE = "the agent owns this file; remove it, and the routes stay as they are until the registry has been read"


@dataclass(frozen=True)
class Followed:
    """One model.

    Attributes:
        state: What its route follows, as far as a route does: labels and traffic.
        route: As it was written last; None for none.
        leaving: Routes that were written before and may still be in force, the last one last.
    """

    state: State = field(default_factory=State)
    route: ModelRoute | None = None
    leaving: Annotated[tuple[ModelRoute, ...], Field(max_length=_MOST_LEAVING)] = ()


@dataclass(frozen=True)
class Turnover:
    """All models of a gateway: what its agent remembers."""

    models: dict[Annotated[str, AfterValidator(check_model_name)], Followed] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def states(self) -> dict[str, State]:
        """What the routes follow."""
        return {name: model.state for name, model in self.models.items()}

    @property
    def table(self) -> RoutingTable:
        """The routes."""
        return RoutingTable(tuple(model.route for _, model in sorted(self.models.items()) if model.route))

    @property
    def kept(self) -> tuple[RoutingTable, ...]:
        """What may be in force: its clusters stay. What was written last comes last."""
        return (*(RoutingTable((route,)) for model in self.models.values() for route in model.leaving), self.table)

    def behind(self, wanted: RoutingTable, states: Mapping[str, State]) -> frozenset[str]:
        """The models whose routes are not as they are wanted.

        Args:
            wanted: What is to be routed.
            states: What that follows.
        """
        return frozenset(name for name in {*states, *self.models} if self.table.route(name) != wanted.route(name))

    def first(self, coming: RoutingTable) -> RoutingTable:
        """Those of what is to be routed whose canary gets its first requests by it."""
        return RoutingTable(tuple(route for route in coming.models if route.weight and not self._shares(route)))

    def _shares(self, route: ModelRoute) -> bool:
        """Whether the same canary has requests already."""
        old = self.table.route(route.model)
        return bool(old and old.weight and old.canary and route.canary and old.canary.version == route.canary.version)

    def over(self, wanted: RoutingTable, states: Mapping[str, State], models: Collection[str]) -> Turnover:
        """The routes of some models are those that are wanted.

        Args:
            wanted: What is to be routed.
            states: What that follows.
            models: Whose clusters Envoy has.
        """
        gone_over = {
            name: _over(self.models.get(name, Followed()), wanted.route(name), states.get(name, State()))
            for name in models
        }
        return replace(self, models=dict(sorted((self.models | gone_over).items())))

    def drained(self, models: Collection[str]) -> Turnover:
        """No earlier route of some models is in force any more; one that has none at all is forgotten."""
        left = {name: replace(model, leaving=()) if name in models else model for name, model in self.models.items()}
        return replace(self, models={name: model for name, model in left.items() if model.leaving or model.route})

    def to_json(self) -> bytes:
        """The document; the same always makes the same bytes."""
        return _ADAPTER.dump_json(self, indent=2, by_alias=True) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, path: str) -> Turnover:
        """Reads such a document.

        Raises:
            FormatError: If it is none, or one of a newer Slipway.
        """
        try:
            return read(_ADAPTER, data, key=path, what="a gateway agent's memory")
        except FormatError as error:
            raise FormatError(error.message, hint=_REMOVE if error.hint == RESTORE else error.hint) from None


def essence(state: State) -> State:
    """What routes follow from a state; the rest is nothing to remember."""
    return State(revision=state.revision, labels=dict(sorted(state.labels.items())), traffic=state.traffic)


def _over(model: Followed, route: ModelRoute | None, state: State) -> Followed:
    there = clusters_of([route] if route else []).keys()
    leaving = list[ModelRoute]()
    for old in (*model.leaving, *([model.route] if model.route else [])):
        needed = clusters_of([old]).keys()
        leaving = [one for one in leaving if clusters_of([one]).keys() != needed]
        leaving += [] if needed <= there else [old]
    return Followed(essence(state), route, tuple(leaving[-_MOST_LEAVING:]))


_ADAPTER = TypeAdapter(Turnover)
