"""Envoy's clusters: one for each model, label, version and API, so that what Envoy counts tells versions apart. Pure.

A rollout is judged by requests that were shared between stable and canary by chance: what somebody sends to the canary
by name, to try it, is no sample. So each side has two clusters of the same servers, which are told apart by the label
they are counted under: `canary` for what was shared, `-canary` for what was asked for by name, or tells about a model
without running it. Where the version that answers is not known, as with gRPC to servers that follow two labels, the
version is 0, which no version is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from model_registry.serving.fleet import Server
from model_registry.serving.gateway.envoy_metrics import model_label
from model_registry.serving.gateway.routing import ModelRoute, Side

Api = Literal["rest", "grpc"]

NAMESPACE = "slipway"
NOT_SHARED = "-"  # no label begins so

# Seconds; less than a request may take, so that time is left to try another server.
_CONNECT = 2.0
# A server that has gone is noticed after two of these; nothing is lost until then, since connecting is tried elsewhere.
_CHECK = "2s"
_DNS = "5s"
# How much of a body waits in Envoy where the reader is slower; a body may be longer, of any length.
BUFFER = 1 << 20
# Envoy's own limits of 1,024 make errors of a burst that the servers' queues would take.
_MOST = 65_536
# TensorFlow Serving closes idle connections; a request on its way just then would be lost.
_IDLE = "20s"


@dataclass(frozen=True)
class Cluster:
    """Servers under the name that their requests are counted by.

    Attributes:
        model: The model.
        label: What they are counted under.
        version: What answers; 0 where that is not known.
        api: Which port is asked.
        servers: The servers.
    """

    model: str
    label: str
    version: int
    api: Api
    servers: tuple[Server, ...]

    @property
    def name(self) -> str:
        """As routes and the access log call it, such as `digits:3@canary/rest`."""
        return f"{self.model}:{self.version}@{self.label}/{self.api}"

    @property
    def answers(self) -> str:
        """Which version it is that answers, such as `digits:3`; empty where that is not known."""
        return f"{self.model}:{self.version}" if self.version else ""

    def resource(self, timeout: float) -> dict[str, Any]:
        """The cluster as Envoy reads it, where a request may take `timeout` seconds."""
        ports = [(server.host, server.rest if self.api == "rest" else server.grpc) for server in self.servers]
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}} for host, port in ports
        ]
        return {
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": self.name,
            # What envoy_bootstrap takes apart into labels again.
            "alt_stat_name": f"{NAMESPACE}.{model_label(self.model)}.{self.label}.{self.version}.{self.api}",
            "metadata": {
                "filter_metadata": {
                    NAMESPACE: {"model": self.model, "label": self.label, "version": str(self.version or "-")}
                }
            },
            # Each address of a name is a server.
            "cluster_type": {
                "name": "envoy.cluster.dns",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
                    "dns_lookup_family": "V4_PREFERRED",
                    "dns_refresh_rate": _DNS,
                },
            },
            "connect_timeout": f"{min(_CONNECT, timeout / 3):.3f}s",
            # An address that its name has no longer gets nothing more, though something may listen there still: a pod
            # that is about to end is taken out of the name first.
            "ignore_health_on_host_removal": True,
            "lb_policy": "LEAST_REQUEST",
            "load_assignment": {"cluster_name": self.name, "endpoints": [{"lb_endpoints": endpoints}]},
            "per_connection_buffer_limit_bytes": BUFFER,
            "circuit_breakers": {
                "thresholds": [
                    {
                        "max_connections": _MOST,
                        "max_pending_requests": _MOST,
                        "max_requests": _MOST,
                        "max_retries": _MOST,
                    }
                ]
            },
            # Whether it listens, and nothing else. What it answers is what a canary is judged by: Envoy must not take
            # a server out for its errors (outlier_detection), or the worse a version is the less is seen of it.
            "health_checks": [
                {
                    "tcp_health_check": {},
                    "timeout": "1s",
                    "interval": _CHECK,
                    "no_traffic_interval": _CHECK,
                    "unhealthy_threshold": 2,
                    "healthy_threshold": 1,
                }
            ],
            # With no server that listens, all are tried: one may be back before the next check.
            "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
            "upstream_connection_options": {
                "tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3}
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "common_http_protocol_options": {"idle_timeout": _IDLE},
                    "explicit_http_config": _PROTOCOLS[self.api],
                }
            },
        }


# No keepalive by HTTP/2 PING: a gRPC server takes frequent ones for an attack, and closes the connection.
_PROTOCOLS: dict[Api, dict[str, Any]] = {
    "rest": {"http_protocol_options": {}},
    "grpc": {
        "http2_protocol_options": {
            "initial_stream_window_size": 1 << 20,
            "initial_connection_window_size": 16 << 20,
        }
    },
}


def shared(route: ModelRoute, side: Side, api: Api) -> Cluster:
    """What gets a side's share of the requests."""
    if api == "grpc" and not side.alone:
        return unknown(route, api)
    return Cluster(route.model, side.label, side.version, api, side.servers)


def of_canary(route: ModelRoute) -> tuple[Cluster, ...]:
    """What gets canary's share of the requests, over each API that is shared."""
    apis: tuple[Api, ...] = ("rest", "grpc") if route.shares_grpc else ("rest",)
    return tuple(shared(route, route.canary, api) for api in apis) if route.canary else ()


def by_name(route: ModelRoute, side: Side, api: Api) -> Cluster:
    """What gets requests that are for this side, whatever the weight, and are no sample of it."""
    if api == "grpc" and not side.alone:
        return unknown(route, api)
    return Cluster(route.model, NOT_SHARED + side.label, side.version, api, side.servers)


def unknown(route: ModelRoute, api: Api) -> Cluster:
    """Stable's servers, for requests of which nobody can tell which version answers."""
    return Cluster(route.model, NOT_SHARED + route.stable.label, 0, api, route.stable.servers)


def clusters_of(routes: Iterable[ModelRoute]) -> dict[str, Cluster]:
    """All that routes may lead to, by name."""
    found: list[Cluster] = []
    for route in routes:
        split = [route.stable, *([route.canary] if route.canary else [])]
        found += [shared(route, side, "rest") for side in split]
        found += [by_name(route, side, "rest") for side in route.sides]
        found.append(unknown(route, "rest"))
        for side in split if route.shares_grpc else [route.stable]:
            found += [shared(route, side, "grpc"), by_name(route, side, "grpc")]
    return {cluster.name: cluster for cluster in found}
