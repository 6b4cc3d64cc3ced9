"""What a real Envoy makes of requests and counts of them: what a rollout is judged by rests on it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from model_registry.serving.fleet import Fleet, FleetFile, Gateway, Server
from model_registry.serving.gateway import envoy_metrics as counted
from model_registry.serving.gateway.routing import ModelRoute, RoutingTable, Side
from tests.support.echo_backend import echo_backend
from tests.support.envoy_process import EnvoyProcess
from tests.support.fixtures_envoy import StartEnvoy
from tests.support.ports import free_port

pytestmark = pytest.mark.xdist_group("gateway")

PREDICT = "/tensorflow.serving.PredictionService/Predict"
# Dots, the words of Envoy's own statistics, what looks like the parts of a cluster's name, a dot at the end.
ODD_NAMES = ("digits", "digits.v2", "digits-v2", "a.stable.3.rest", "grpc.x_y", "rest", "a..b", "digits.", "9.0.2.grpc")
_SECONDS = 20.0


@pytest.fixture
def stable() -> Iterator[Server]:
    with echo_backend(2) as server:
        yield server


@pytest.fixture
def canary() -> Iterator[Server]:
    with echo_backend(3) as server:
        yield server


def fleets(timeout: float = 60.0) -> FleetFile:
    return FleetFile(fleets={"stable": Fleet()}, gateway=Gateway(timeout=timeout))


def table(stable: Server, canary: Server | None = None, weight: int = 0, *models: str) -> RoutingTable:
    other = Side("canary", 3, (canary,)) if canary else None
    return RoutingTable(
        tuple(ModelRoute(name, 7, Side("stable", 2, (stable,)), other, weight) for name in models or ("digits",))
    )


def ask(
    envoy: EnvoyProcess, path: str, body: bytes = b"{}", *, method: str = "POST", timeout: float = _SECONDS
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", envoy.rest_port, timeout=timeout)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, json.loads(content) if content.startswith(b"{") else content.decode(), headers


def call(
    envoy: EnvoyProcess, body: bytes = b"x", model: str | None = "digits", *, method: str = PREDICT, **options: Any
) -> tuple[str, str]:
    """The status, and the answer or what the refusal says."""
    metadata = (("slipway-model", model),) if model is not None else ()
    with grpc.insecure_channel(envoy.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            answer = channel.unary_unary(method)(body, metadata=metadata, timeout=_SECONDS, **options)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return "OK", answer.decode()


# Path, the version that is to answer at 100 %, what that is asked for where it is another path, and under which label
# it is counted; None where nobody can tell which version answers.
PATHS = (
    ("/v1/models/digits:predict", 3, "/v1/models/digits/labels/canary:predict", "canary"),
    ("/v1/models/digits:classify?x=1", 3, "/v1/models/digits/labels/canary:classify?x=1", "canary"),
    ("/v1/models/digits/labels/stable:regress", 3, "/v1/models/digits/labels/canary:regress", "canary"),
    ("/v1/models/digits", 3, "/v1/models/digits/labels/canary", "-canary"),
    ("/v1/models/digits/labels/stable/metadata", 3, "/v1/models/digits/labels/canary/metadata", "-canary"),
    ("/v1/models/digits/labels/canary:predict", 3, "", "-canary"),
    ("/v1/models/digits/labels/beta:predict", 4, "", "-beta"),
    ("/v1/models/digits/versions/2:predict", 2, "", "-stable"),
    ("/v1/models/digits/versions/3/metadata", 3, "", "-canary"),
    ("/v1/models/digits/versions/4", 4, "", "-beta"),
    ("/v1/models/digits/versions/99:predict", 2, "", None),
    ("/v1/models/digits/labels/gamma:predict", 2, "", None),
    ("/v1/models/digits:explain", 2, "", None),
    ("/v1/models/digits.v2:predict", 2, "/v1/models/digits.v2/labels/stable:predict", "stable"),
)


def test_each_path_leads_where_it_says(start_envoy: StartEnvoy, stable: Server, canary: Server) -> None:
    sides = (Side("stable", 2, (stable,)), Side("canary", 3, (canary,)))
    with echo_backend(4) as beta:
        others = (Side("beta", 4, (beta,)),)
        routes = (ModelRoute("digits", 7, *sides, weight=100, others=others), ModelRoute("digits.v2", 7, *sides))
        envoy = start_envoy(fleets(), RoutingTable(routes))
        for path, version, asked, label in PATHS:
            status, answer, headers = ask(envoy, path)
            model = path.split("/")[3].partition(":")[0]
            assert (status, answer["version"], answer["path"]) == (200, version, asked or path)
            assert headers.get("slipway-version") == (f"{model}:{version}" if label else None), path
        lines = envoy.access_log(len(PATHS))

    told = [(line["path"], line["label"], line["version"], line["status"], line["attempts"]) for line in lines]
    assert told == [
        (path, label or "-stable", str(version) if label else "-", 200, 1) for path, version, _, label in PATHS
    ]


def test_what_no_model_is_called_is_refused_as_a_server_does(start_envoy: StartEnvoy, stable: Server) -> None:
    envoy = start_envoy(fleets(), table(stable, None, 0, "digits", "faces"))

    for path in ("/v1/models/digit:predict", "/v1/models/digitsX:predict", "/v1/models/", "/", "/v1/models/Digits"):
        status, answer, headers = ask(envoy, path)
        assert (status, headers["content-type"]) == (404, "application/json"), path
        assert answer["error"].startswith("Servable not found for request"), path
    assert ask(envoy, "/v1/models/digits%2f..%2ffaces:predict")[0] == 400
    assert ask(envoy, "/v1/models/digits/../faces:predict")[1]["path"] == "/v1/models/faces/labels/stable:predict"
    for model in ("digit", None):
        code, said = call(envoy, model=model)
        assert (code, said.split(":")[0]) == ("NOT_FOUND", "Servable not found for request"), model


def test_grpc_needs_no_name_where_there_is_one_model(start_envoy: StartEnvoy, stable: Server) -> None:
    envoy = start_envoy(fleets(), table(stable))

    assert call(envoy) == call(envoy, model=None) == ("OK", "2")
    assert call(envoy, model="faces")[0] == "NOT_FOUND"


def test_nobody_reconfigures_a_server_through_a_gateway(start_envoy: StartEnvoy, stable: Server) -> None:
    envoy = start_envoy(fleets(), table(stable))

    assert call(envoy, method="/tensorflow.serving.ModelService/GetModelStatus") == ("OK", "2")
    assert call(envoy, method="/tensorflow.serving.ModelService/HandleReloadConfigRequest")[0] == "NOT_FOUND"


def test_large_bodies_pass(start_envoy: StartEnvoy, stable: Server) -> None:
    envoy = start_envoy(fleets(), table(stable))
    body = b"\xff" * (40 << 20)

    assert ask(envoy, "/v1/models/digits:predict", body)[1]["length"] == len(body)
    assert call(envoy, body) == ("OK", "2")


def test_a_stranger_s_headers_change_neither_retries_nor_timeouts(start_envoy: StartEnvoy, stable: Server) -> None:
    envoy = start_envoy(fleets(timeout=20), table(stable))
    connection = http.client.HTTPConnection("127.0.0.1", envoy.rest_port, timeout=1)

    connection.request("POST", "/v1/models/digits:predict", b"hang", {"x-envoy-upstream-rq-timeout-ms": "10"})
    with pytest.raises(TimeoutError):  # the gateway's 20 seconds hold, and not the header's hundredth of one
        connection.getresponse()
    connection.close()


def test_a_call_out_of_its_client_s_time_is_counted_once(start_envoy: StartEnvoy, stable: Server) -> None:
    envoy = start_envoy(fleets(), table(stable))
    for _ in range(10):  # now the client is first, and now the server, which knows the deadline too
        _grpc(b"hang", "DEADLINE_EXCEEDED", 0.05)(envoy)

    def counts() -> float:
        return envoy.value(counted.GRPC_FAILURES) + envoy.value(counted.GRPC_ABANDONED)

    envoy.wait(lambda: counts() == 10, f"ten requests, of {counts()}")
    assert envoy.value(counted.GRPC_SUCCESSES) == envoy.value(counted.TIMEOUTS) == 0


def test_names_of_models_are_labels_of_metrics_as_they_are(start_envoy: StartEnvoy, stable: Server) -> None:
    envoy = start_envoy(fleets(), table(stable, None, 0, *ODD_NAMES))
    for times, name in enumerate(ODD_NAMES, start=1):
        for _ in range(times):
            assert ask(envoy, f"/v1/models/{name}:predict")[0] == 200
        assert call(envoy, model=name)[0] == "OK"

    of_rest = {dict(labels)["model"]: value for labels, value in envoy.samples(counted.REQUESTS).items() if value > 1}
    assert of_rest == {counted.model_label(name): times for times, name in enumerate(ODD_NAMES, start=1) if times > 1}
    for times, name in enumerate(ODD_NAMES, start=1):
        same = {"model": counted.model_label(name), "label": "stable", "version": "2"}
        assert envoy.value(counted.REQUESTS, **same, api="rest") == times
        assert envoy.value(counted.GRPC_SUCCESSES, **same, api="grpc") == 1


# What envoy_metrics says, line by line: how much each counter grows by one request.
_CLASS_2, _CLASS_4, _CLASS_5 = ((counted.REQUESTS, name) for name in "245")
_LATENCY = ("envoy_cluster_upstream_rq_time_count", "")
_GOOD, _BAD = (counted.GRPC_SUCCESSES, ""), (counted.GRPC_FAILURES, "")
_ALL = (_CLASS_2, _CLASS_4, _CLASS_5, _LATENCY, _GOOD, _BAD)


def _hang_up(envoy: EnvoyProcess) -> None:
    with pytest.raises(TimeoutError):
        ask(envoy, "/v1/models/digits:predict", b"hang", timeout=0.3)


def _cancel(envoy: EnvoyProcess) -> None:
    with grpc.insecure_channel(envoy.target) as channel:
        pending = channel.unary_unary(PREDICT).future(b"hang")
        envoy.wait(lambda: envoy.value("envoy_cluster_upstream_rq_active", api="grpc") == 1, "the request")
        pending.cancel()


def _rest(body: bytes, expected: int) -> Callable[[EnvoyProcess], None]:
    def send(envoy: EnvoyProcess) -> None:
        assert ask(envoy, "/v1/models/digits:predict", body)[0] == expected

    return send


def _grpc(body: bytes, expected: str, timeout: float | None = _SECONDS) -> Callable[[EnvoyProcess], None]:
    def send(envoy: EnvoyProcess) -> None:
        with grpc.insecure_channel(envoy.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            answer = channel.unary_unary(PREDICT).future(body, timeout=timeout)
            assert (answer.exception().code().name if answer.exception() else "OK") == expected

    return send


@pytest.mark.parametrize(
    ("send", "server", "api", "grown", "also"),
    [
        pytest.param(_rest(b"x", 200), "stable", "rest", [_CLASS_2, _LATENCY], {}, id="REST answered"),
        pytest.param(_rest(b"refuse", 400), "stable", "rest", [_CLASS_4, _LATENCY], {}, id="REST refused"),
        pytest.param(_rest(b"fail", 500), "stable", "rest", [_CLASS_5, _LATENCY], {}, id="REST failed"),
        pytest.param(
            _rest(b"hang", 504), "stable", "rest", [_CLASS_5],
            {counted.ABANDONED: 1, counted.TIMEOUTS: 1}, id="REST out of time",
        ),
        pytest.param(_rest(b"x", 503), "nobody", "rest", [_CLASS_5], {}, id="REST nobody listens"),
        pytest.param(_rest(b"break", 503), "stable", "rest", [_CLASS_5], {}, id="REST broken"),
        pytest.param(
            _hang_up, "stable", "rest", [], {counted.ABANDONED: 1, counted.TIMEOUTS: 0}, id="REST hung up"
        ),
        pytest.param(_grpc(b"x", "OK"), "stable", "grpc", [_CLASS_2, _LATENCY, _GOOD], {}, id="gRPC answered"),
        pytest.param(
            _grpc(b"refuse", "INVALID_ARGUMENT"), "stable", "grpc", [_CLASS_2, _LATENCY, _BAD], {}, id="gRPC refused"
        ),
        pytest.param(
            _grpc(b"hang", "DEADLINE_EXCEEDED", None), "stable", "grpc", [_CLASS_5, _BAD],
            {counted.GRPC_ABANDONED: 1, counted.TIMEOUTS: 1}, id="gRPC out of time",
        ),
        pytest.param(_grpc(b"x", "UNAVAILABLE"), "nobody", "grpc", [_CLASS_5, _BAD], {}, id="gRPC nobody listens"),
        pytest.param(
            _cancel, "stable", "grpc", [], {counted.GRPC_ABANDONED: 1, counted.TIMEOUTS: 0}, id="gRPC cancelled"
        ),
    ],
)  # fmt: skip
def test_a_request_is_counted_once(
    start_envoy: StartEnvoy,
    stable: Server,
    send: Callable[[EnvoyProcess], None],
    server: str,
    api: str,
    grown: list[tuple[str, str]],
    also: dict[str, float],
) -> None:
    nobody = Server(host="127.0.0.1", grpc=free_port(), rest=free_port())
    envoy = start_envoy(fleets(timeout=1.0), table(stable if server == "stable" else nobody))

    send(envoy)

    def counts() -> dict[tuple[str, str], float]:
        same = {"model": "digits", "label": "stable", "version": "2", "api": api}
        return {
            key: envoy.value(key[0], **same, **({counted.CLASS: key[1]} if key[1] else {})) for key in _ALL
        }  # fmt: skip

    expected = {key: 1.0 if key in grown else 0.0 for key in _ALL}
    if grown:
        envoy.wait(lambda: counts() == expected, f"{expected}, of {counts()}")  # histograms are merged by the clock
    for name, value in also.items():
        envoy.wait(lambda name=name, value=value: envoy.value(name, api=api) == value, f"{name} to be {value}")  # type: ignore[misc]
    assert counts() == expected
