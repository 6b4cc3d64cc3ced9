"""Envoy's routes: which request goes to which cluster. Pure.

REST, of a model M with the labels stable and canary:

    /v1/models/M:predict, :classify, :regress       shared; the path is rewritten to say which label is meant
    /v1/models/M/labels/stable:predict ...          the same: who names stable asks for what everybody gets
    /v1/models/M and /v1/models/M/metadata          shared likewise, so that a client's view fits the answers it gets,
      (and with /labels/stable)                     but no sample of a rollout: they run no model
    /v1/models/M/labels/canary...                   canary's servers, whatever the weight; no sample of it
    /v1/models/M/labels/OTHER...                    the servers that follow OTHER
    /v1/models/M/versions/N...                      the servers of the first of stable, canary and the others by name
                                                    whose label names N
    anything else of M                              stable's servers, which say what is wrong with it
    anything else                                   404, and JSON as TensorFlow Serving has it

Two routes share: Envoy rewrites a path by route, not by weighted cluster. The first takes `weight` percent at random,
the second the rest.

gRPC has the model and the label in its body. With several models, the metadata `slipway-model: M` says which; with one
it is not needed. Predict, Classify, Regress and MultiInference are shared; so are GetModelMetadata and GetModelStatus,
which are no samples. HandleReloadConfig, by which anybody could reconfigure a server, has no route.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.routing import ModelRoute, RoutingTable, Side
from model_registry.serving.gateway.upstream_clusters import NAMESPACE, Cluster, by_name, shared, unknown

MODEL_HEADER = "slipway-model"
VERSION_HEADER = "slipway-version"

_PREDICTION = "/tensorflow.serving.PredictionService/"
_ABOUT = (f"{_PREDICTION}GetModelMetadata", "/tensorflow.serving.ModelService/GetModelStatus")
_VERBS = ":(?:predict|classify|regress)"
# So much of a body is kept until an answer is there, to send it to another server where the first did not take it.
_KEPT_BODY = 16 << 20
_NOT_FOUND = "5"  # of gRPC's codes


def route_configuration(table: RoutingTable, file: FleetFile) -> dict[str, Any]:
    """The route configuration of both APIs as Envoy reads it: a file that it watches can hold but one.

    Its metadata says each model's weight and revision, to be read back from Envoy.
    """
    timeout = f"{file.gateway.timeout:.3f}s"
    rest = [route for model in table.models for route in _rest(model, timeout)]
    # By name first; without a name only where there is but one.
    grpc = [route for model in table.models for route in _grpc(model, timeout, _named(model.model))]
    if len(table.models) == 1:
        grpc += _grpc(table.models[0], timeout, [{"name": MODEL_HEADER, "present_match": False}])
    said = {model.model: {"weight": model.weight, "revision": model.revision} for model in table.models}
    routes = [*rest, *grpc, _no_such_grpc_model(), _no_such_model()]
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": NAMESPACE,
        "metadata": {"filter_metadata": {NAMESPACE: said}},
        "virtual_hosts": [
            {"name": NAMESPACE, "domains": ["*"], "request_body_buffer_limit": _KEPT_BODY, "routes": routes}
        ],
    }


def _rest(route: ModelRoute, timeout: str) -> Iterable[dict[str, Any]]:
    model = f"/v1/models/{_escaped(route.model)}"
    stable = f"{model}(?:/labels/{route.stable.label})?"
    prefix = f"^{stable}"
    for pattern, cluster in ((stable + _VERBS, shared), (f"{stable}(?:/metadata)?", by_name)):
        for side in (route.canary, route.stable):
            if side is None or (side is route.canary and not route.weight):
                continue
            match: dict[str, Any] = _regex(pattern)
            if side is route.canary:
                fraction = {"numerator": route.weight, "denominator": "HUNDRED"}
                match["runtime_fraction"] = {"default_value": fraction}
            rewritten = f"/v1/models/{route.model}/labels/{side.label}"
            action = {"regex_rewrite": {"pattern": {"regex": prefix}, "substitution": rewritten}}
            yield _to(cluster(route, side, "rest"), match, {**action, "timeout": timeout})
    first: dict[int, Side] = {}
    for side in route.sides:
        first.setdefault(side.version, side)
        if side is not route.stable:
            cluster_ = by_name(route, side, "rest")
            yield _to(cluster_, _regex(f"{model}/labels/{side.label}(?:[:/].*)?"), {"timeout": timeout})
    for version, side in first.items():
        pattern = f"{model}/versions/{version}(?:[:/].*)?"
        yield _to(by_name(route, side, "rest"), _regex(pattern), {"timeout": timeout})
    yield _to(unknown(route, "rest"), _regex(f"{model}(?:[:/].*)?"), {"timeout": timeout})


def _grpc(route: ModelRoute, timeout: str, headers: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for match in ({"path": _ABOUT[0]}, {"path": _ABOUT[1]}, {"prefix": _PREDICTION}):
        cluster = by_name if "path" in match else shared
        split = [(cluster(route, route.stable, "grpc"), 100 - route.grpc_weight)]
        if route.canary is not None and route.grpc_weight:
            split.append((cluster(route, route.canary, "grpc"), route.grpc_weight))
        yield {
            "match": {**match, "headers": headers, "grpc": {}},
            "route": {
                "weighted_clusters": {
                    "clusters": [
                        {"name": found.name, "weight": weight, **_naming(found)} for found, weight in split if weight
                    ]
                },
                # A client's own deadline goes on to the server. Were it Envoy's too (max_stream_duration), a request
                # that it ends would be counted twice; see envoy_metrics.
                "timeout": timeout,
                "retry_policy": _RETRY,
            },
        }


def _to(cluster: Cluster, match: dict[str, Any], action: dict[str, Any]) -> dict[str, Any]:
    return {"match": match, "route": {"cluster": cluster.name, "retry_policy": _RETRY, **action}, **_naming(cluster)}


def _naming(cluster: Cluster) -> dict[str, Any]:
    """Tells the client which version it is that answers."""
    if not cluster.answers:
        return {}
    return {"response_headers_to_add": [_header(VERSION_HEADER, cluster.answers)]}


def _named(model: str) -> list[dict[str, Any]]:
    return [{"name": MODEL_HEADER, "string_match": {"exact": model}}]


def _header(key: str, value: str) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _regex(pattern: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": pattern}}


def _escaped(model: str) -> str:
    return model.replace(".", r"\.")  # the only character of a model's name that means something in RE2


# Only what no server has begun on: where it did, the answer may be an error that a canary is to be judged by.
_RETRY: dict[str, Any] = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 4,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "1s"},
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    # LEAST_REQUEST prefers the server that has just died, since nothing is under way there: of two, it is picked three
    # times out of four while the other is busy.
    "host_selection_retry_max_attempts": 20,
}


def _no_such_model() -> dict[str, Any]:
    said = '{"error": "Servable not found for request: this gateway has no route to a model of that name"}\n'
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 404, "body": {"inline_string": said}},
        "response_headers_to_add": [_header("content-type", "application/json")],
    }


def _no_such_grpc_model() -> dict[str, Any]:
    said = f"Servable not found for request: this gateway has no route to it; is the metadata {MODEL_HEADER} given?"
    return {
        "match": {"prefix": "/", "grpc": {}},
        "direct_response": {"status": 404, "body": {"inline_string": said}},
        "response_headers_to_add": [_header("grpc-status", _NOT_FOUND)],  # Envoy makes UNIMPLEMENTED of a 404
    }
