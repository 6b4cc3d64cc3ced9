"""What an Envoy says of itself: the only witness of what is in force.

Its admin interface has no password, so it listens on the loopback address only, and no proxy is ever asked. What it
answers is checked as if anybody had written it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal, TypeVar

from model_registry.errors import FormatError, InvalidInputError, StorageError
from model_registry.paths import check_model_name
from model_registry.serving.bounded_http import Answer, BoundedHttp, TooLargeError, words
from model_registry.serving.gateway.envoy_resources import clusters_missing, clusters_with_servers, weights_in_force
from model_registry.serving.gateway.routing import RoutingTable
from model_registry.serving.gateway.upstream_clusters import of_canary
from model_registry.serving.http_url import base_url

_LARGEST = 64 << 20  # bytes of an answer: a hundred models have some hundred clusters of two kilobytes
_SHOWN = 200
_HIGHEST = 2**53  # what a number in JSON may be
_EXPECTED = "expected http://HOST:PORT of Envoy's admin interface, port 9901 unless fleet.yaml says otherwise"

# Clusters that it has not taken up, for which a route waits; or an address of a server of canary, for which that does.
Lack = Literal["clusters", "servers"]

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class EnvoyLook:
    """What one look at an Envoy shows.

    Attributes:
        reachable: Whether it answered as Envoy does.
        refused: Whether nobody listens there: no Envoy runs, as one that is only slow does.
        live: Whether it takes requests.
        in_force: The weight of canary in percent and the revision, by model, that its routes follow.
        lacking: The models of those asked about whose requests cannot be shared as is wanted yet, and for want of what.
        problem: What is wrong with its answers; empty where nothing is, or there was none.
    """

    reachable: bool = False
    refused: bool = False
    live: bool = False
    in_force: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    lacking: Mapping[str, Lack] = field(default_factory=dict)
    problem: str = ""

    def lack(self, what: Lack) -> frozenset[str]:
        """The models that lack something."""
        return frozenset(model for model, lack in self.lacking.items() if lack == what)


class EnvoyAdmin:
    """The admin interface of one Envoy, asked over a connection for each question."""

    def __init__(self, url: str, *, timeout: float = 2.0) -> None:
        """Asks for nothing yet.

        Args:
            url: Of the interface, such as `http://127.0.0.1:9901`.
            timeout: Seconds from the first attempt to connect to the last byte of an answer.

        Raises:
            InvalidInputError: If the URL is none.
        """
        self.url = base_url(url, what="URL of Envoy's admin interface", expected=_EXPECTED)
        self._http = BoundedHttp(timeout=timeout, limit=_LARGEST, proxied=False)

    def look(self, coming: RoutingTable, first: RoutingTable | None = None) -> EnvoyLook:
        """What is in force, and what there is to be routed to.

        Args:
            coming: What is to be routed, once its clusters are there.
            first: Those of it whose canary is to get its first requests, once the address of a server is known.
        """
        try:
            live = self._is_live()
            in_force = self._dump("dynamic_route_configs", _checked_weights)
            lacking: dict[str, Lack] = {}
            if first and first.models:
                lacking |= dict.fromkeys(_without_servers(first, self._read("/clusters?format=json")), "servers")
            if coming.models:
                missing = self._dump("dynamic_active_clusters", lambda dump: _lacking(coming, dump))
                lacking |= dict.fromkeys(missing, "clusters")
        except StorageError as error:
            return EnvoyLook(refused=isinstance(error.__cause__, ConnectionRefusedError), problem=error.message)
        except FormatError as error:
            return EnvoyLook(problem=str(error))
        return EnvoyLook(True, live=live, in_force=in_force, lacking=lacking)

    def _is_live(self) -> bool:
        answer = self._ask("/ready")
        said = answer.body[:_SHOWN].decode(errors="replace").strip()
        # LIVE; else PRE_INITIALIZING, INITIALIZING or DRAINING
        if answer.status not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE) or not said.isupper():
            raise FormatError(f"/ready answers {answer.status}: {said or answer.reason}", hint=_EXPECTED)
        return answer.status == HTTPStatus.OK and said == "LIVE"

    def _dump(self, resource: str, read: Callable[[bytes], _Read]) -> _Read:
        return read(self._read(f"/config_dump?resource={resource}"))

    def _read(self, path: str) -> bytes:
        answer = self._ask(path)
        if answer.status != HTTPStatus.OK:
            said = answer.body[:_SHOWN].decode(errors="replace").strip()
            raise FormatError(f"{path} answers {answer.status}: {said or answer.reason}", hint=_EXPECTED)
        return answer.body

    def _ask(self, path: str) -> Answer:
        try:
            return self._http.ask(self.url + path)
        except TooLargeError:
            raise FormatError(f"{path} has more than {_LARGEST >> 20} MiB", hint=_EXPECTED) from None
        except OSError as error:
            raise StorageError(f"it does not answer: {words(error)}", transient=True) from error


def _checked_weights(config_dump: bytes) -> Mapping[str, tuple[int, int]]:
    found = weights_in_force(config_dump)
    for model, (weight, revision) in found.items():
        try:
            check_model_name(model)
        except InvalidInputError as error:
            raise FormatError(f"a route in force is of no model: {error.message}", hint=_EXPECTED) from None
        if not (0 <= weight <= 100 and 0 <= revision <= _HIGHEST):
            raise FormatError(
                f"routes in force give canary of {model} {weight} % by revision {revision}: expected 0 to 100 %, and a "
                "revision from 0 on",
                hint=_EXPECTED,
            )
    return found


def _lacking(coming: RoutingTable, config_dump: bytes) -> frozenset[str]:
    if not clusters_missing(coming, config_dump):
        return frozenset()
    return frozenset(route.model for route in coming.models if clusters_missing(RoutingTable((route,)), config_dump))


def _without_servers(first: RoutingTable, clusters: bytes) -> frozenset[str]:
    there = clusters_with_servers(clusters)
    return frozenset(route.model for route in first.models if {one.name for one in of_canary(route)} - there)
