"""Watches one Envoy over time: for how long it has been silent, lacks clusters, or has had routes in force."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from model_registry.serving.gateway.envoy_admin import EnvoyAdmin, EnvoyLook, Lack
from model_registry.serving.gateway.routing import RoutingTable
from model_registry.serving.gateway.turnover import Followed

_SLOW = 10.0  # seconds after which clusters that Envoy does not take up are told of
_UNKNOWN = 60.0  # and servers without an address: a name server may keep an old answer for half a minute
_SILENCE = 30.0  # seconds that Envoy may say nothing that makes sense before it counts as gone


class EnvoyWatch:
    """Of one Envoy. All methods are for one thread, but `answers`.

    Attributes:
        url: Of its admin interface.
    """

    def __init__(self, url: str, *, drain: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Asks for nothing yet.

        Args:
            url: Of its admin interface.
            drain: Seconds for requests under way to end.
            clock: Tells seconds that never go back.

        Raises:
            InvalidInputError: If the URL is none.
        """
        self._admin = EnvoyAdmin(url)
        self.url = self._admin.url
        self._drain = drain
        self._clock = clock
        self._heard_at = clock()
        self._lacking_since: dict[tuple[str, Lack], float] = {}
        self._in_force_since: dict[str, float] = {}

    def answers(self) -> bool:
        """Whether there is an Envoy by now."""
        return self._admin.look(RoutingTable()).reachable

    def look(self, coming: RoutingTable, first: RoutingTable) -> EnvoyLook:
        """What is in force, and what there is to be routed to.

        Args:
            coming: What is to be routed, once its clusters are there: they were written.
            first: Those of it whose canary is to get its first requests, once the address of a server is known.
        """
        look = self._admin.look(coming, first)
        now = self._clock()
        self._heard_at = now if look.reachable or look.refused else self._heard_at
        self._lacking_since = {lack: self._lacking_since.get(lack, now) for lack in look.lacking.items()}
        return look

    def may_be_running(self, look: EnvoyLook) -> bool:
        """Whether it is silent, as it is under load, and has not been for long."""
        return not look.reachable and not look.refused and self._clock() - self._heard_at < _SILENCE

    def slow(self) -> dict[str, Lack]:
        """The models that it should have by now what their routes wait for, and what that is."""
        now, patience = self._clock(), {"clusters": _SLOW, "servers": _UNKNOWN}
        return {name: lack for (name, lack), since in self._lacking_since.items() if now - since > patience[lack]}

    def drained(self, models: Mapping[str, Followed], look: EnvoyLook) -> set[str]:
        """The models whose routes have been in force for long enough that nothing else is under way."""
        now, in_force = self._clock(), set()
        for name, model in models.items() if look.reachable else ():
            route = model.route
            if look.in_force.get(name) == ((route.weight, route.revision) if route else None):
                in_force.add(name)
        self._in_force_since = {name: self._in_force_since.get(name, now) for name in in_force}
        return {name for name, since in self._in_force_since.items() if now - since >= self._drain}

    def rerouted(self, model: str) -> None:
        """A model's routes are others from now on."""
        self._in_force_since.pop(model, None)
