"""The Envoys that share requests between fleets, each with its agent. Pure."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.envoy_bootstrap import bootstrap
from model_registry.serving.kubernetes import agents, naming
from model_registry.serving.kubernetes.fleets import budget, ports, prometheus
from model_registry.serving.kubernetes.manifest import Manifest
from model_registry.serving.kubernetes.pods import NOTICED, checksum, container, drain, pod, rolling, spread, tmp
from model_registry.serving.kubernetes.settings import Settings

_ROUTES = "/var/lib/slipway"
_FILES = "/etc/slipway"
_EVERYBODY = "0.0.0.0"  # noqa: S104 - of the pod, behind a NetworkPolicy
_FLEET, _ENVOY = "fleet.yaml", "envoy.json"
_CONTAINER = "envoy"

_CPUS, _MEMORY = 2, "1536Mi"  # Envoy refuses requests from 95 % of 1 GiB of heap on

_SAYS = """\
The gateway: Envoy, and the agent that tells it which share of the requests goes to the canary.

The agent writes routes before Envoy starts, which would end without them, and goes on as a sidecar. Envoy takes up \
what it writes while it runs; nothing in here is changed by a rollout.

Before a pod ends, Envoy tells its clients: to HTTP/1.1 by `Connection: close`, to HTTP/2 by GOAWAY. It ends once \
those have had the time to go, and their last requests are answered.

Envoy's admin interface listens on the loopback address. Prometheus has a port of its own, which answers nothing but \
metrics."""

_CONFIG = """\
What Envoy is started with, and where the agent finds the servers: the pods of each fleet, one by one, unless the \
fleet file names servers that are none of its fleets'."""


def gateway_manifests(file: FleetFile, settings: Settings) -> list[Manifest]:
    """All there is of the gateway; nothing where none is to run."""
    if not file.gateway.replicas:
        return []
    selector = naming.gateway_selector()
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": naming.metadata(naming.GATEWAY, selector, settings.namespace),
        "data": _files(file, settings),
    }
    return [
        agents.account(naming.GATEWAY, selector, settings),
        Manifest(config, _CONFIG),
        _deployment(file, settings),
        _service(file, settings),
        budget(naming.GATEWAY, selector, settings),
        _who_may_reach(file, settings),
    ]


def drain_command(admin: int, seconds: int) -> list[str]:
    """What tells Envoy's clients to go, and gives them the time. The image has bash, and nothing that speaks HTTP."""
    request = (
        "POST /healthcheck/fail HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n"
    )
    script = f"exec 3<>/dev/tcp/127.0.0.1/{admin} && printf '{request}' >&3 && cat <&3; sleep {seconds}"
    return ["bash", "-c", script]


def _files(file: FleetFile, settings: Settings) -> dict[str, str]:
    there = naming.in_kubernetes(file, settings.namespace)
    written = io.StringIO()
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(there.model_dump(mode="json", exclude_defaults=True), written)
    return {
        _FLEET: written.getvalue(),
        _ENVOY: bootstrap(there, directory=_ROUTES, listen=_EVERYBODY, metrics=_EVERYBODY),
    }


def _deployment(file: FleetFile, settings: Settings) -> Manifest:
    gateway, selector = file.gateway, naming.gateway_selector()
    mounts: list[dict[str, Any]] = [
        {"name": "routes", "mountPath": _ROUTES},
        {"name": "files", "mountPath": _FILES, "readOnly": True},
    ]
    told = ["gateway", _ROUTES, f"--fleet={_FILES}/{_FLEET}"]
    follow = [*told, f"--envoy=http://127.0.0.1:{gateway.admin}", f"--listen=0.0.0.0:{naming.GATEWAY_AGENT}"]
    spec = pod(
        gateway.timeout,
        lowest_port=min(gateway.rest, gateway.grpc, gateway.admin, gateway.metrics),
        serviceAccountName=naming.GATEWAY,
        topologySpreadConstraints=spread(selector),
        initContainers=[
            agents.prepares("first-routes", [*told, "--once"], settings, mounts),
            agents.follows("agent", follow, settings, mounts, port=(naming.GATEWAY_AGENT_PORT, naming.GATEWAY_AGENT)),
        ],
        containers=[_envoy(file, settings)],
        volumes=[
            {"name": "routes", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "files", "configMap": {"name": naming.GATEWAY}},
            tmp(),
            *agents.volumes(settings),
        ],
    )
    labels = naming.metadata(naming.GATEWAY, selector, "")["labels"]
    annotations = {
        naming.CHECKSUM: checksum(_files(file, settings), {"keys": settings.public_key}),
        **agents.lent_to_agents(settings, _CONTAINER),
    }
    content = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": naming.metadata(naming.GATEWAY, selector, settings.namespace),
        "spec": {
            "replicas": gateway.replicas,
            "minReadySeconds": NOTICED,
            "revisionHistoryLimit": 3,
            "strategy": rolling(),
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec},
        },
    }
    return Manifest(content, _SAYS)


def _envoy(file: FleetFile, settings: Settings) -> dict[str, Any]:
    gateway = file.gateway
    # Its ports are opened once it has read the routes: it listens, so it works.
    listens = {"tcpSocket": {"port": "rest"}, "timeoutSeconds": 5}
    return container(
        _CONTAINER,
        settings.envoy_image,
        cpu=str(_CPUS),
        memory=_MEMORY,
        mounts=[
            {"name": "routes", "mountPath": _ROUTES, "readOnly": True},
            {"name": "files", "mountPath": _FILES, "readOnly": True},
        ],
        command=["envoy"],
        args=[f"--config-path={_FILES}/{_ENVOY}", f"--concurrency={_CPUS}", "--disable-hot-restart"],
        ports=[
            {"name": "rest", "containerPort": gateway.rest},
            {"name": "grpc", "containerPort": gateway.grpc},
            {"name": naming.ENVOY_PORT, "containerPort": gateway.metrics},
        ],
        startupProbe={**listens, "periodSeconds": 2, "failureThreshold": 150},
        livenessProbe={**listens, "periodSeconds": 10, "failureThreshold": 6},
        readinessProbe={**listens, "periodSeconds": 5, "failureThreshold": 2},
        lifecycle={"preStop": {"exec": {"command": drain_command(gateway.admin, drain(gateway.timeout))}}},
    )


def _service(file: FleetFile, settings: Settings) -> Manifest:
    served = (("rest", file.gateway.rest), ("grpc", file.gateway.grpc))
    content = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": naming.metadata(naming.GATEWAY, naming.gateway_selector(), settings.namespace),
        "spec": {
            "selector": naming.gateway_selector(),
            "ports": [{"name": name, "port": number, "targetPort": name} for name, number in served],
        },
    }
    return Manifest(content, "What clients ask. It is the cluster's own; what is outside needs an Ingress before it.")


def _who_may_reach(file: FleetFile, settings: Settings) -> Manifest:
    operators = {"podSelector": {"matchLabels": {naming.OPERATOR: "true"}}}
    content = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": naming.metadata(naming.GATEWAY, naming.gateway_selector(), settings.namespace),
        "spec": {
            "podSelector": {"matchLabels": naming.gateway_selector()},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": ports(file.gateway.rest, file.gateway.grpc)},
                {"from": [prometheus(settings)], "ports": ports(file.gateway.metrics, naming.GATEWAY_AGENT)},
                {"from": [operators], "ports": ports(naming.GATEWAY_AGENT)},
            ],
        },
    }
    return Manifest(content, "Whoever is in the cluster may ask the gateway; whom it lets in is for you to narrow.")
