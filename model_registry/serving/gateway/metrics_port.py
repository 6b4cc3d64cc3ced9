"""Lets Prometheus ask an Envoy on another machine, without letting anybody there near its admin interface. Pure.

The admin listens on the loopback address: whoever reaches it can end Envoy. This adds a port that hands on one path of
it, and nothing else.
"""

from __future__ import annotations

from typing import Any

PATH = "/stats/prometheus"

_NAME = "metrics"
_TYPE = "type.googleapis.com/envoy.extensions.filters"


def metrics_listener(listen: str, port: int) -> dict[str, Any]:
    """What Prometheus asks.

    Args:
        listen: The IP address that it is opened at.
        port: Its number.
    """
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


def metrics_cluster(admin: dict[str, Any]) -> dict[str, Any]:
    """Where the listener hands on to.

    Args:
        admin: The address of the admin interface, as Envoy's configuration has it.
    """
    endpoint = {"endpoint": {"address": admin}}
    return {
        "name": _NAME,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": _NAME, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
