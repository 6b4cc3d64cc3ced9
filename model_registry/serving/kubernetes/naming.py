"""How objects, labels and ports are called, and where a gateway finds a fleet's servers. Pure.

A port is named after the job of Prometheus that asks there: by that name `slipway render prometheus --kubernetes` finds
it in whichever pod it is.
"""

from __future__ import annotations

import re
from typing import Any

from model_registry.serving.fleet import Fleet, FleetFile, Server

GRPC, REST, AGENT, GATEWAY_AGENT = 8500, 8501, 8502, 8503

# Names of ports; at most 15 characters. Those of metrics are the jobs of prometheus_config.
GRPC_PORT = "grpc"
REST_PORT = "tf-serving"
AGENT_PORT = "slipway-sync"
GATEWAY_AGENT_PORT = "slipway-gateway"
ENVOY_PORT = "envoy"

GATEWAY = "slipway-gateway"

# Pods that carry them may ask servers directly, and agents, whatever else a NetworkPolicy of the fleets forbids.
CLIENT = "slipway/client"
OPERATOR = "slipway/operator"
SHARED_GPU = "slipway/shared-gpu"
CHECKSUM = "slipway/config"

_SERVER = "tf-serving"

# What a Service is called by those who ask for it; the cluster's domain is `cluster.local` unless it was set up
# otherwise. https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
_SERVICE = re.compile(r"(?P<service>[a-z0-9-]+)(\.(?P<namespace>[a-z0-9-]+)(\.svc(\.cluster\.local)?)?)?")


def fleet_object(fleet: str) -> str:
    """The name of what there is once for a fleet."""
    return f"{_SERVER}-{fleet}"


def each_server(fleet: str) -> str:
    """The name of the headless Service, which stands for the address of each server that is ready."""
    return f"each-{_SERVER}-{fleet}"


def fleet_selector(fleet: str) -> dict[str, str]:
    """What tells a fleet's pods from all others."""
    return {"app.kubernetes.io/name": _SERVER, "app.kubernetes.io/instance": fleet}


def gateway_selector() -> dict[str, str]:
    """What tells the gateway's pods from all others."""
    return {"app.kubernetes.io/name": GATEWAY, "app.kubernetes.io/instance": "gateway"}


def metadata(name: str, selector: dict[str, str], namespace: str, **more: Any) -> dict[str, Any]:
    """An object's metadata.

    Args:
        name: Its name.
        selector: What tells the pods that it is about.
        namespace: Its namespace; left out where empty.
        more: Such as `annotations`.
    """
    where = {"namespace": namespace} if namespace else {}
    labels = {**selector, "app.kubernetes.io/part-of": "slipway", "app.kubernetes.io/managed-by": "slipway-render"}
    return {"name": name, **where, "labels": labels, **{key: value for key, value in more.items() if value}}


def in_kubernetes(file: FleetFile, namespace: str = "") -> FleetFile:
    """The file with each fleet's pods as its servers, each by its own address; servers from elsewhere stay.

    A fleet whose servers are named by its Service gets its pods all the same: behind the Service's one address a
    connection of gRPC stays with one pod, and all requests of it end when that pod does.

    Args:
        file: What is run.
        namespace: Where; the gateway's own where empty.
    """
    fleet_of = {fleet_object(name): name for name in file.fleets}

    def pods(fleet: str, where: str) -> Server:
        host = ".".join(filter(None, (each_server(fleet), where, "svc" if where else "")))
        return Server(host=host, grpc=GRPC, rest=REST)

    def reached(server: Server) -> Server:
        found = _SERVICE.fullmatch(server.host.lower())
        if not found or found["service"] not in fleet_of:
            return server
        where = found["namespace"] or namespace
        # Of another namespace nothing is known here, whatever it has that is called the same.
        return server if namespace and where != namespace else pods(fleet_of[found["service"]], where)

    def servers(name: str, fleet: Fleet) -> tuple[Server, ...]:
        # The Service under two of its names is still one.
        return tuple(dict.fromkeys(map(reached, fleet.servers))) or (pods(name, namespace),)

    fleets = {name: fleet.model_copy(update={"servers": servers(name, fleet)}) for name, fleet in file.fleets.items()}
    return file.model_copy(update={"fleets": fleets})
