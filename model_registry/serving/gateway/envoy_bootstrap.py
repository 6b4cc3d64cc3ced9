"""What an Envoy is started with: its ports, its limits, its log and what it counts. Pure.

Clusters and routes are not in it: Envoy reads those from two files in a directory, as often as they change
(envoy_resources). Both must be there as it starts, or it ends at once; its ports are opened once it has read them.
"""

from __future__ import annotations

import json
from typing import Any

from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.envoy_metrics import BUCKETS
from model_registry.serving.gateway.envoy_resources import CLUSTERS_FILE, ROUTES_FILE
from model_registry.serving.gateway.envoy_routes import MODEL_HEADER
from model_registry.serving.gateway.metrics_port import metrics_cluster, metrics_listener
from model_registry.serving.gateway.upstream_clusters import BUFFER, NAMESPACE

HEALTH_PATH = "/healthz"

_TYPE = "type.googleapis.com/envoy."
_LOOPBACK = "127.0.0.1"
_NOBODY = "255.255.255.255"

# A cluster is counted as slipway.MODEL.LABEL.VERSION.API, and then what is counted. A model's name may have dots; the
# other parts have none, and nothing behind them looks like them. So the longest match is the right one.
_PARTS = (r"(slipway\.(.+)\.)", r"(([^.]+)\.)", r"(([0-9]+)\.)", r"((rest|grpc)\.)")
_PLAIN = (r"slipway\..+\.", r"[^.]+\.", r"[0-9]+\.", r"(?:rest|grpc)\.")
LABELS = ("model", "label", "version", "api")

_UNCOUNTED = (
    r"cluster\..*\.(?:external|internal)\.upstream_rq_[a-z0-9_]+",
    r"cluster\..*\.(?:upstream_cx_(?:connect|length)_ms|upstream_rq_per_cx)",
    r"(?:cluster\..*\.)?http2\.(?:cookie|header)_(?:count|size|list_size)",
)

_HEAP = 1 << 30
_CONNECTIONS = 20_000

# Envoy says UNAVAILABLE of what took too long, and clients ask again for what is unavailable.
_IN_TIME: dict[str, Any] = {
    "local_reply_config": {
        "mappers": [
            {
                "filter": {"response_flag_filter": {"flags": ["UT"]}},
                "headers_to_add": [
                    {"header": {"key": "grpc-status", "value": "4"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                ],
            }
        ]
    }
}


def bootstrap(
    file: FleetFile, *, directory: str, listen: str = _LOOPBACK, metrics: str = _LOOPBACK, heap: int = _HEAP
) -> str:
    """The configuration that Envoy is started with, as JSON, which is YAML too.

    Args:
        file: Its ports, and how long a request may take.
        directory: Where CLUSTERS_FILE and ROUTES_FILE are, as Envoy sees it.
        listen: The IP address that requests are taken at. The admin's is the loopback address, whatever this is:
            whoever reaches it can end Envoy, or read all it knows.
        metrics: The IP address that Prometheus asks at.
        heap: Bytes that Envoy may use; from 95 % on it refuses requests, rather than being killed with all of them.
    """
    gateway = file.gateway
    admin = _address(_LOOPBACK, gateway.admin)
    config = {
        "node": {"id": "slipway-gateway", "cluster": NAMESPACE},
        "admin": {"address": admin},
        "stats_config": _stats(),
        # Counters are told at once and histograms as of the last flush: five seconds by default, in which a short bake
        # has errors and no latencies.
        "stats_flush_interval": "1s",
        "overload_manager": _overload(heap),
        "dynamic_resources": {"cds_config": _from_file(directory, CLUSTERS_FILE)},
        "static_resources": {
            "listeners": [
                _listener("rest", listen, gateway.rest, gateway.timeout, directory),
                _listener("grpc", listen, gateway.grpc, gateway.timeout, directory),
                metrics_listener(metrics, gateway.metrics),
            ],
            "clusters": [metrics_cluster(admin)],
        },
    }
    return json.dumps(config, indent=2) + "\n"


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _from_file(directory: str, name: str) -> dict[str, Any]:
    place = directory.rstrip("/") or "/"
    return {
        "resource_api_version": "V3",
        # Until it is there; else Envoy opens its ports without routes after 15 seconds, and answers 404.
        "initial_fetch_timeout": "0s",
        # Watching the directory sees a file that is moved into place, as well as a ConfigMap's link that is turned.
        "path_config_source": {"path": f"{place}/{name}", "watched_directory": {"path": place}},
    }


def _stats() -> dict[str, Any]:
    tags = []
    for index, label in enumerate(LABELS):
        parts = [_PARTS[at] if at == index else _PLAIN[at] for at in range(len(LABELS))]
        tags.append({"tag_name": label, "regex": r"^cluster\." + "".join(parts)})
    # Envoy's own tags look for words in the middle of names, and would find them in a model's: only those needed.
    own = ("envoy.response_code_class", "envoy.response_code", "envoy.http_conn_manager_prefix")
    return {
        "use_all_default_tags": False,
        "stats_tags": [*({"tag_name": name} for name in own), *tags],
        # A second time by where the client is, and histograms that nobody asked for: nine of ten lines otherwise.
        "stats_matcher": {"exclusion_list": {"patterns": [{"safe_regex": {"regex": regex}} for regex in _UNCOUNTED]}},
        "histogram_bucket_settings": [{"match": {"prefix": "cluster.slipway."}, "buckets": list(BUCKETS)}],
    }


def _overload(heap: int) -> dict[str, Any]:
    """Envoy's documentation advises both for whatever strangers reach."""
    monitor = f"{_TYPE}extensions.resource_monitors."
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": {
                    "@type": f"{monitor}fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": heap,
                },
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{monitor}downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": _CONNECTIONS,
                },
            },
        ],
        "actions": [
            _action("envoy.overload_actions.shrink_heap", 0.9),
            _action("envoy.overload_actions.stop_accepting_requests", 0.95),
        ],
    }


def _action(name: str, threshold: float) -> dict[str, Any]:
    return {
        "name": name,
        "triggers": [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": threshold}}],
    }


def _listener(name: str, listen: str, port: int, timeout: float, directory: str) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "access_log": [_access_log(name)],
        "rds": {"route_config_name": NAMESPACE, "config_source": _from_file(directory, ROUTES_FILE)},
        # The client is who connects, and not who a header says. Headers such as x-envoy-upstream-rq-timeout-ms, by
        # which a client could change timeouts and retries, are nobody's: without an address that no client has, Envoy
        # would believe those of the loopback and of private networks.
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": _NOBODY, "prefix_len": 32}]},
        "normalize_path": True,
        "merge_slashes": True,
        # %2F in a path could be another path to the server than to the routes here.
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {"idle_timeout": "3600s"},
        "request_headers_timeout": "10s",  # who sends headers by the byte
        "request_timeout": f"{timeout:.3f}s",
        # Above the routes' own limit, so that it is that one that ends a slow request, and says so.
        "stream_idle_timeout": f"{timeout + 30:.3f}s",
        # Envoy's defaults hold for headers: 60 KiB and 100 of them.
        "http2_protocol_options": {
            "max_concurrent_streams": 1000,
            "initial_stream_window_size": 1 << 20,  # images are large, and 64 KiB a round trip is slow
            "initial_connection_window_size": 16 << 20,
        },
        **(_IN_TIME if name == "grpc" else {}),
        "http_filters": [
            {
                "name": "envoy.filters.http.health_check",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.filters.http.health_check.v3.HealthCheck",
                    "pass_through_mode": False,
                    "headers": [{"name": ":path", "string_match": {"exact": HEALTH_PATH}}],
                },
            },
            {
                "name": "envoy.filters.http.grpc_stats",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.filters.http.grpc_stats.v3.FilterConfig",
                    "stats_for_all_methods": False,  # a method's name is the client's to choose
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"},
            },
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "name": name,
        "address": _address(listen, port),
        "per_connection_buffer_limit_bytes": BUFFER,
        "filter_chains": [chain],
    }


def _access_log(name: str) -> dict[str, Any]:
    cluster = f"%METADATA(CLUSTER:{NAMESPACE}:"
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": f"{_TYPE}extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {
                "json_format": {
                    "time": "%START_TIME%",
                    "api": name,
                    "model": f"{cluster}model)%",
                    "label": f"{cluster}label)%",
                    "version": f"{cluster}version)%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
                    "asked_for": f"%REQ({MODEL_HEADER})%",
                    "status": "%RESPONSE_CODE%",
                    "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%" if name == "grpc" else "",
                    "milliseconds": "%DURATION%",
                    "bytes_received": "%BYTES_RECEIVED%",
                    "bytes_sent": "%BYTES_SENT%",
                    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                    "flags": "%RESPONSE_FLAGS%",
                    "server": "%UPSTREAM_HOST%",
                    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                    "request": "%REQ(X-REQUEST-ID)%",
                }
            },
        },
    }
