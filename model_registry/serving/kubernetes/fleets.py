"""One fleet: its Deployment, its Services, how many may be missing, and who may reach it. Pure."""

from __future__ import annotations

from typing import Any

from model_registry.serving.fleet import FleetFile
from model_registry.serving.kubernetes import agents, gpus, naming, servers
from model_registry.serving.kubernetes.manifest import Manifest
from model_registry.serving.kubernetes.pods import NOTICED, checksum, pod, rolling, tmp
from model_registry.serving.kubernetes.settings import Settings

# Kubernetes takes the largest number for no deadline at all, as that of its first API of Deployments says and its
# controller does (pkg/controller/deployment/util, HasProgressDeadline).
_NO_DEADLINE = 2_147_483_647
# A first sync and a load that is given up after fifteen minutes fit in.
_DEADLINE = 1_800

_SAYS = """\
Fleet {name}: TensorFlow Serving, and the agent that brings it what the labels {labels} name.

A pod begins with what the registry has now (first-sync), verified byte by byte. The agent is a sidecar, an init \
container that goes on: it is there before the server starts and until it has ended, and whether the pod is ready is \
what it says: the server answers, under every label.

Loading may take twenty minutes: until then no probe ends the server, and no update counts as failed.

No request through a gateway is lost by an update. A new pod is ready for {noticed} s, in which everybody learns of \
it, before an old one ends; and that serves on until nobody sends it anything and what it has is answered. Who asks \
the Service itself keeps a connection to one pod, and has to connect again when that ends.

The models' volume is on the machine's disk. If it grows beyond its limit, the kubelet ends the pod: it must hold \
every version that labels name, one on its way, and one of each model that stays for a rollback."""


def fleet_manifests(name: str, file: FleetFile, settings: Settings) -> list[Manifest]:
    """All there is of a fleet but what scales it."""
    selector, called = naming.fleet_selector(name), naming.fleet_object(name)
    return [
        agents.account(called, selector, settings),
        _files(name, file, settings),
        _deployment(name, file, settings),
        _service(called, selector, settings, each=False),
        _service(naming.each_server(name), selector, settings, each=True),
        budget(called, selector, settings),
        _who_may_reach(name, file, settings),
    ]


def budget(name: str, selector: dict[str, str], settings: Settings) -> Manifest:
    """How many may be missing at a time, while machines are emptied."""
    content = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": naming.metadata(name, selector, settings.namespace),
        "spec": {
            "maxUnavailable": 1,
            # One that is not ready keeps nobody from emptying its machine.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector},
        },
    }
    return Manifest(content, "While machines are emptied, one at a time.")


def _files(name: str, file: FleetFile, settings: Settings) -> Manifest:
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": naming.metadata(naming.fleet_object(name), naming.fleet_selector(name), settings.namespace),
        "data": servers.files(file.fleets[name]),
    }
    return Manifest(content, "What the server reads beside its models.")


def _deployment(name: str, file: FleetFile, settings: Settings) -> Manifest:
    fleet, timeout = file.fleets[name], file.gateway.timeout
    selector, called = naming.fleet_selector(name), naming.fleet_object(name)
    models = [{"name": "models", "mountPath": servers.MODELS}]
    options = [
        *(f"--model={model}" for model in fleet.models),
        *(f"--label={label}" for label in file.labels(name)),
        *(f"--variant={variant}" for variant in fleet.variants),
    ]
    patient = file.gateway.stable not in file.labels(name)
    follow = [
        "sync",
        servers.MODELS,
        f"--server=http://127.0.0.1:{naming.REST}",
        f"--listen=0.0.0.0:{naming.AGENT}",
        *options,
    ]
    spec = pod(
        timeout,
        serviceAccountName=called,
        **gpus.placement(name, fleet),
        initContainers=[
            agents.prepares(
                "first-sync", ["sync", servers.MODELS, "--once", *options], settings, models, patient=patient
            ),
            agents.follows("agent", follow, settings, models, port=(naming.AGENT_PORT, naming.AGENT), disk=fleet.disk),
        ],
        containers=[servers.server(fleet, settings, timeout=timeout)],
        volumes=[
            {"name": "models", "emptyDir": {"sizeLimit": fleet.disk}},
            {"name": "files", "configMap": {"name": called}},
            tmp(),
            *agents.volumes(settings),
        ],
    )
    replicas = {} if fleet.replicas.scales else {"replicas": fleet.replicas.min}
    annotations = {
        naming.CHECKSUM: checksum(servers.files(fleet), {"keys": settings.public_key}),
        **agents.lent_to_agents(settings, servers.SERVER),
    }
    labels = naming.metadata(called, selector, "")["labels"] | gpus.gpu_labels(fleet)
    content = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": naming.metadata(called, selector, settings.namespace),
        "spec": {
            **replicas,
            "minReadySeconds": NOTICED,
            # A patient pod waits in its init container for days: with a deadline, an update that nothing is wrong with
            # would fail, and `kubectl rollout status` with it.
            "progressDeadlineSeconds": _NO_DEADLINE if patient else _DEADLINE,
            "revisionHistoryLimit": 3,
            "strategy": rolling(),
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec},
        },
    }
    said = _SAYS.format(name=name, labels=" and ".join(file.labels(name)), noticed=NOTICED)
    waits = (
        "Where no model has such a label, as between two rollouts, a new pod waits in Init for one; those that are "
        "there have nothing loaded, and are not ready. A gateway gives the canary its first requests once it knows the "
        "address of a pod that is. So an update of this fleet has no deadline: whether it is amiss, its pods alone "
        "tell."
        if patient
        else ""
    )
    return Manifest(content, "\n\n".join(filter(None, (said, waits, gpus.says(name, file)))))


def _service(name: str, selector: dict[str, str], settings: Settings, *, each: bool) -> Manifest:
    # The headless one is for the gateway, which chooses a server for each request by itself: a connection of gRPC
    # is kept, and through the other Service all its requests would go to one pod.
    ports = [(naming.GRPC_PORT, naming.GRPC), (naming.REST_PORT, naming.REST)]
    content = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": naming.metadata(name, selector, settings.namespace),
        "spec": {
            **({"clusterIP": "None"} if each else {}),
            "selector": selector,
            "ports": [{"name": port, "port": number, "targetPort": port} for port, number in ports],
        },
    }
    says = "The address of each server that is ready, for the gateway." if each else "One address for all servers."
    return Manifest(content, says)


def _who_may_reach(name: str, file: FleetFile, settings: Settings) -> Manifest:
    gateway = [{"podSelector": {"matchLabels": naming.gateway_selector()}}] if file.gateway.replicas else []
    clients = {"podSelector": {"matchLabels": {naming.CLIENT: "true"}}}
    operators = {"podSelector": {"matchLabels": {naming.OPERATOR: "true"}}}
    content = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": naming.metadata(naming.fleet_object(name), naming.fleet_selector(name), settings.namespace),
        "spec": {
            "podSelector": {"matchLabels": naming.fleet_selector(name)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [*gateway, clients], "ports": ports(naming.GRPC, naming.REST)},
                {"from": [prometheus(settings)], "ports": ports(naming.REST, naming.AGENT)},
                {"from": [operators], "ports": ports(naming.AGENT)},
            ],
        },
    }
    who = "The gateway and pods" if gateway else "Pods"
    says = (
        f"{who} with the label {naming.CLIENT}=true may ask the servers, those with {naming.OPERATOR}=true the agents "
        f"(promote --wait), and what is in the namespace {settings.prometheus} both for metrics: a server has those on "
        "its REST port. Nothing is said of where pods may connect to: the agents need the registry, wherever it is."
    )
    return Manifest(content, says)


def ports(*numbers: int) -> list[dict[str, Any]]:
    """The ports of a rule."""
    return [{"protocol": "TCP", "port": number} for number in numbers]


def prometheus(settings: Settings) -> dict[str, Any]:
    """Those that ask for metrics."""
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.prometheus}}}
