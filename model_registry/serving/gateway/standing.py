"""How each model stands at a gateway, and whether that is fit for requests. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from model_registry.serving.gateway.envoy_admin import EnvoyLook, Lack
from model_registry.serving.gateway.gateway_report import RoutedReport
from model_registry.serving.gateway.routing import ModelRoute, RoutingTable
from model_registry.state import State


def standing(
    states: Mapping[str, State],
    wanted: RoutingTable,
    envoy: EnvoyLook,
    *,
    unread: Mapping[str, str],
    waiting: Mapping[str, str],
) -> dict[str, RoutedReport]:
    """How each model stands.

    Args:
        states: As they were read last.
        wanted: What is to be routed by them.
        envoy: What is.
        unread: Why some states cannot be read now, by model.
        waiting: Why Envoy does not share some models' requests as is wanted, by model.
    """
    problems = {**wanted.problems, **waiting, **unread}
    return {
        name: _standing(
            states.get(name, State()),
            wanted.route(name),
            envoy.in_force.get(name, (None, None)),
            unrouted=name in wanted.unrouted and name not in unread,
            problem=problems.get(name, ""),
            notice=wanted.notices.get(name, ""),
        )
        for name in sorted({route.model for route in wanted.models} | envoy.in_force.keys() | problems.keys())
    }


def _standing(
    state: State,
    route: ModelRoute | None,
    in_force: tuple[int, int] | tuple[None, None],
    *,
    unrouted: bool,
    problem: str,
    notice: str,
) -> RoutedReport:
    weight, revision = in_force
    return RoutedReport(
        wanted_revision=state.revision,
        revision=revision,
        unrouted=unrouted,
        stable=route.stable.version if route else None,
        canary=route.canary.version if route and route.canary else None,
        # The registry's, whether or not it can be routed so.
        wanted_weight=state.traffic.weight if state.traffic else 0,
        weight=weight,
        problem=problem,
        notice=notice,
    )


def held_up(
    lacking: Mapping[str, Lack], states: Mapping[str, State], wanted: RoutingTable, *, root: Path
) -> dict[str, str]:
    """Why Envoy does not share the requests of some models as is wanted, in words.

    Args:
        lacking: What Envoy should have by now, by model.
        states: As they were read last.
        wanted: What is to be routed by them.
        root: Where the agent writes.
    """
    found = {}
    for route in wanted.models:
        if lacking.get(route.model) == "clusters":
            found[route.model] = (
                f"Envoy does not take up the clusters of revision {states[route.model].revision}, its routes stay: is "
                f"{root} what its bootstrap names? Its log tells what it refuses"
            )
        elif route.model in lacking and route.canary:
            hosts = " or ".join(sorted({server.host for server in route.canary.servers}))
            found[route.model] = (
                f"Envoy knows no server of {route.model}:{route.canary.version}, which gets no requests: expected an "
                f"address of {hosts}; in Kubernetes a pod has one once it is ready"
            )
    return found


class Readiness:
    """Whether an Envoy is fit for requests: it takes them, and routes every model that it routed before.

    A model that is new takes nothing away from it. Only the very first time, when there is no before, it is to route
    all that are wanted.
    """

    def __init__(self, before: Collection[str] | None) -> None:
        """Begins.

        Args:
            before: The models that were routed when an agent ran here last; None if none ever did.
        """
        self._first = before is None
        self._counted_on = frozenset(before or ())

    def see(self, wanted: RoutingTable, envoy: EnvoyLook) -> bool:
        """Whether it is.

        Args:
            wanted: What is to be routed; what is not any more is not counted on.
            envoy: What is.
        """
        routed = frozenset(route.model for route in wanted.models)
        self._counted_on = (self._counted_on | envoy.in_force.keys()) & routed
        expected = routed if self._first else self._counted_on
        ready = envoy.live and bool(envoy.in_force) and expected <= envoy.in_force.keys()
        self._first = self._first and not ready
        return ready
