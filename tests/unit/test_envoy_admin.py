"""What is made of an admin interface's answers, whoever gives them."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from model_registry.errors import InvalidInputError
from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.envoy_admin import EnvoyAdmin
from model_registry.serving.gateway.routing import RoutingTable, Side, routing_table
from model_registry.serving.gateway.upstream_clusters import clusters_of, of_canary
from model_registry.state import State
from tests.support.dripping import dripper

FLEET = FleetFile.model_validate({"fleets": {"stable": {"servers": [{"host": "127.0.0.1"}]}}})
COMING = routing_table({name: State(revision=1, labels={"stable": 1}) for name in ("digits", "faces")}, FLEET)

SHARED = RoutingTable(
    tuple(
        replace(route, canary=Side("canary", 2, route.stable.servers), weight=5)
        for route in COMING.models
        if route.model == "digits"
    )
)


def routes(**models: Any) -> bytes:
    """A dump of routes that say so of some models."""
    config = {"route_config": {"metadata": {"filter_metadata": {"slipway": models}}}}
    return json.dumps({"configs": [config]}).encode()


def clusters(*names: str) -> bytes:
    return json.dumps({"configs": [{"cluster": {"name": name}} for name in names]}).encode()


@contextmanager
def admin(answers: dict[str, tuple[int, bytes]]) -> Iterator[EnvoyAdmin]:
    """An admin interface that answers each path, or resource of a dump, as it is told."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path.partition("=")[2] or self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield EnvoyAdmin(f"http://127.0.0.1:{server.server_address[1]}/")
        finally:
            server.shutdown()
            thread.join()


GOOD = {
    "/ready": (200, b"LIVE\n"),
    "dynamic_route_configs": (200, routes(digits={"weight": 25.0, "revision": 7.0})),
    "dynamic_active_clusters": (200, clusters(*clusters_of(COMING.models[:1]))),
    "json": (200, b"{}"),
}


def test_what_is_in_force_and_what_is_lacking_is_told() -> None:
    with admin(GOOD) as envoy:
        look = envoy.look(COMING)

    assert (look.reachable, look.live, look.problem) == (True, True, "")
    assert look.in_force == {"digits": (25, 7)}
    assert look.lacking == {"faces": "clusters"}


def test_a_canary_that_is_to_get_its_first_requests_lacks_servers_where_no_address_of_one_is_known() -> None:
    names = [cluster.name for cluster in of_canary(SHARED.models[0])]
    there = {"dynamic_active_clusters": (200, clusters(*clusters_of(SHARED.models)))}
    for known, expected in ((names, {}), (names[:1], {"digits": "servers"}), ([], {"digits": "servers"})):
        found = {"cluster_statuses": [{"name": name, "host_statuses": [{}]} for name in known]}
        with admin(GOOD | there | {"json": (200, json.dumps(found).encode())}) as envoy:
            assert envoy.look(SHARED, SHARED).lacking == expected
            assert envoy.look(SHARED).lacking == {}


def test_an_envoy_that_does_not_take_requests_yet_is_reachable_and_not_live() -> None:
    with admin(GOOD | {"/ready": (503, b"PRE_INITIALIZING\n"), "dynamic_route_configs": (200, b"{}")}) as envoy:
        look = envoy.look(RoutingTable())

    assert (look.reachable, look.live, look.in_force) == (True, False, {})


@pytest.mark.parametrize(
    ("path", "status", "body", "expected"),
    [
        ("/ready", 200, b"<html>It works!</html>", "/ready answers 200: <html>"),
        ("/ready", 404, b"NOT FOUND", "/ready answers 404"),
        ("/ready", 302, b"", "/ready answers 302"),
        ("dynamic_route_configs", 500, b"oh", "answers 500: oh"),
        ("dynamic_route_configs", 200, b"", "dump of"),
        ("dynamic_route_configs", 200, b"\xff", "dump of"),
        ("dynamic_route_configs", 200, b"[]", "dump of"),
        ("dynamic_route_configs", 200, b"[" * 100_000, "dump of"),
        ("dynamic_route_configs", 200, b'{"configs": 5}', "dump of"),
        ("dynamic_route_configs", 200, b'{"configs": ["x"]}', "dump of"),
        ("dynamic_route_configs", 200, routes(digits={"weight": 101, "revision": 1}), "expected 0 to 100 %"),
        ("dynamic_route_configs", 200, routes(digits={"weight": -1, "revision": 1}), "expected 0 to 100 %"),
        ("dynamic_route_configs", 200, routes(digits={"weight": 1, "revision": 1e300}), "revision from 0 on"),
        ("dynamic_route_configs", 200, routes(digits={"weight": float("inf"), "revision": 1}), "dump of"),
        ("dynamic_route_configs", 200, routes(digits={"weight": float("nan"), "revision": 1}), "dump of"),
        ("dynamic_route_configs", 200, routes(digits={"weight": None, "revision": 1}), "dump of"),
        ("dynamic_route_configs", 200, routes(digits=[]), "dump of"),
        ("dynamic_route_configs", 200, routes(**{"../x": {"weight": 1, "revision": 1}}), "is of no model"),
        ("dynamic_active_clusters", 200, b"[]", "dump of"),
        ("dynamic_active_clusters", 200, b'{"configs": [{}]}', "dump of"),
        ("json", 404, b"", "/clusters?format=json answers 404"),
        ("json", 200, b"[]", "dump of"),
        ("json", 200, b'{"cluster_statuses": [{"host_statuses": [1]}]}', "dump of"),
    ],
)
def test_what_no_envoy_answers_is_a_problem_and_nothing_more(
    path: str, status: int, body: bytes, expected: str
) -> None:
    with admin(GOOD | {path: (status, body)}) as envoy:
        look = envoy.look(COMING, SHARED)

    assert not look.reachable
    assert not look.refused
    assert expected in look.problem


def test_nobody_there_is_told_from_one_that_is_slow() -> None:
    with admin(GOOD) as envoy:
        pass
    assert envoy.look(COMING).refused

    with dripper(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n") as slow:
        look = EnvoyAdmin(slow.url, timeout=0.5).look(COMING)
    assert not look.refused
    assert "no whole answer within" in look.problem


@pytest.mark.parametrize("url", ["127.0.0.1:9901", "file:///etc/passwd", "http://a:b@127.0.0.1:9901", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="admin interface"):
        EnvoyAdmin(url)
