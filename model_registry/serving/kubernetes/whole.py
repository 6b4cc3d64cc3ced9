"""All that runs a fleet.yaml in a cluster. Pure."""

from __future__ import annotations

from model_registry.errors import InvalidInputError
from model_registry.serving.fleet import FleetFile
from model_registry.serving.kubernetes import agents, autoscaling, naming
from model_registry.serving.kubernetes.fleets import fleet_manifests
from model_registry.serving.kubernetes.gateway import gateway_manifests
from model_registry.serving.kubernetes.manifest import Manifest, to_text
from model_registry.serving.kubernetes.settings import Settings

_HEAD = """\
Fleets of TensorFlow Serving, each server with the agent that follows the registry{gateway}.

  kubectl apply --server-side -f FILE     # needs Kubernetes 1.30 or later

Written by `slipway render kubernetes`; it has no secrets in it, and may be edited. {credentials}"""


def manifests(file: FleetFile, settings: Settings) -> list[Manifest]:
    """Every object, in the order in which they are to be made.

    Args:
        file: What is to run.
        settings: What the cluster adds.

    Raises:
        InvalidInputError: If the gateway's ports are taken by its agent.
    """
    gateway = file.gateway
    if gateway.replicas and naming.GATEWAY_AGENT in (gateway.rest, gateway.grpc, gateway.admin, gateway.metrics):
        raise InvalidInputError(
            f"the gateway's ports include {naming.GATEWAY_AGENT}, where its agent answers in the same pod",
            hint="choose another in the fleet file",
        )
    return [
        *agents.keys(settings),
        *(
            manifest
            for name in file.fleets
            for manifest in (*fleet_manifests(name, file, settings), *autoscaling.autoscaler(name, file, settings))
        ),
        *autoscaling.adapter_rules(file, settings),
        *gateway_manifests(file, settings),
    ]


def render(file: FleetFile, settings: Settings) -> str:
    """The file's content.

    Args:
        file: What is to run.
        settings: What the cluster adds.

    Raises:
        InvalidInputError: As `manifests` does.
    """
    credentials = (
        f"The agents' credentials are the keys of the Secret {settings.credentials}."
        if settings.credentials
        else "The agents have no credentials but those that the cluster lends to their ServiceAccounts."
    )
    gateway = ", and the gateway before them" if file.gateway.replicas else ""
    return to_text(_HEAD.format(gateway=gateway, credentials=credentials), manifests(file, settings))
