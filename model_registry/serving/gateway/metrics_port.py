"""Lets Prometheus ask an Envoy on another machine, without letting anybody there near its admin interface. Pure.

The admin listens on the loopback address: whoever reaches it can end Envoy. This adds a port that hands on one path of
it, and nothing else.
"""

from __future__ import annotations

import json
from typing import Any

PATH = "/stats/prometheus"

_NAME = "metrics"
_TYPE = "type.googleapis.com/envoy.extensions.filters"


def with_metrics_port(bootstrap: str, *, listen: str, port: int) -> str:
    """The configuration with a port for Prometheus.

    Args:
        bootstrap: What envoy_bootstrap wrote.
        listen: The IP address that it is opened at.
        port: Its number.
    """
    config = json.loads(bootstrap)
    admin = config["admin"]["address"]
    static = config["static_resources"]
    static["listeners"] = [*static.get("listeners", []), _listener(listen, port)]
    static["clusters"] = [*static.get("clusters", []), _cluster(admin)]
    return json.dumps(config, indent=2) + "\n"


def _listener(listen: str, port: int) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": _NAME,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_headers_timeout": "10s",
        "route_config": {
            "name": _NAME,
            "virtual_hosts": [
                {
                    "name": _NAME,
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {
                                "path": PATH,
                                "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
                            },
                            "route": {"cluster": _NAME, "timeout": "30s"},
                        }
                    ],
                }
            ],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router", "suppress_envoy_headers": True},
            }
        ],
    }
    return {
        "name": _NAME,
        "address": {"socket_address": {"address": listen, "port_value": port}},
        # Counted neither against what clients may open, nor refused when they have opened it all.
        "ignore_global_conn_limit": True,
        # Two Envoys at one port would be asked in turn, and their counters taken for one's that falls.
        "enable_reuse_port": False,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _cluster(admin: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": admin}}
    return {
        "name": _NAME,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": _NAME, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
