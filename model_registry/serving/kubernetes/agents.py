"""The containers that follow the registry, and what they need of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model_registry.serving.kubernetes.manifest import Manifest
from model_registry.serving.kubernetes.naming import metadata
from model_registry.serving.kubernetes.pods import container
from model_registry.serving.kubernetes.settings import Settings
from model_registry.signing import PUBLIC_KEY_VARIABLE

_KEYS = "slipway-public-keys"
_KEYS_AT = "/etc/slipway/keys"
_KEY_FILE = "public-key.pem"

# A shell that is the first process of a container ends on no signal that it has no trap for.
_UNTIL_THERE_IS_SOMETHING = "trap 'exit 143' TERM; until slipway \"$@\"; do sleep 10 & wait $!; done"

# About 100 MiB idle; what is on its way from the store comes on top.
_CPU, _MEMORY = "500m", "512Mi"


def prepares(
    name: str, arguments: Sequence[str], settings: Settings, mounts: list[dict[str, Any]], *, patient: bool = False
) -> dict[str, Any]:
    """An agent that ends once there is something to begin with.

    Args:
        name: Of the container.
        arguments: What it is told.
        settings: Its image, and where its credentials are.
        mounts: Its volumes.
        patient: Whether there may rightly be nothing for days, as for a fleet that serves canaries: it then asks again
            every ten seconds by itself. What fails otherwise the kubelet starts again, ever more rarely, and says so.
    """
    if not patient:
        return _agent(name, arguments, settings, mounts)
    return _agent(name, [name, *arguments], settings, mounts, command=["/bin/sh", "-c", _UNTIL_THERE_IS_SOMETHING])


def follows(
    name: str,
    arguments: Sequence[str],
    settings: Settings,
    mounts: list[dict[str, Any]],
    *,
    port: tuple[str, int],
    disk: str = "",
) -> dict[str, Any]:
    """An agent for as long as the pod is there: a sidecar, begun before the server and ended after it.

    Args:
        name: Of the container.
        arguments: What it is told.
        settings: Its image, and where its credentials are.
        mounts: Its volumes.
        port: Where it answers: the name and the number.
        disk: What is kept for its volume on the machine's disk; nothing where empty.
    """
    named, number = port

    def asking(path: str, **more: Any) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": named}, "timeoutSeconds": 5, **more}

    return _agent(
        name,
        arguments,
        settings,
        mounts,
        more_requests={"ephemeral-storage": disk} if disk else {},
        restartPolicy="Always",
        ports=[{"name": named, "containerPort": number}],
        startupProbe=asking("/healthz", periodSeconds=2, failureThreshold=60),
        livenessProbe=asking("/healthz", periodSeconds=10, failureThreshold=6),
        readinessProbe=asking("/readyz", periodSeconds=5, failureThreshold=2),
    )


def volumes(settings: Settings) -> list[dict[str, Any]]:
    """What the agents mount besides what they fill."""
    return [{"name": "keys", "configMap": {"name": _KEYS}}] if settings.public_key else []


def keys(settings: Settings) -> list[Manifest]:
    """The public keys, which are no secret."""
    if not settings.public_key:
        return []
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(_KEYS, {"app.kubernetes.io/name": _KEYS}, settings.namespace),
        "data": {_KEY_FILE: settings.public_key},
    }
    return [Manifest(content, "Manifests that none of these keys signed are refused.")]


def lent_to_agents(settings: Settings, *others: str) -> dict[str, str]:
    """A pod's annotations by which what a cloud lends to its ServiceAccount is given to the agents alone.

    By themselves EKS and Azure put the token into every container. Google's metadata server answers whoever asks in
    the pod, and has no such annotation.

    https://github.com/aws/amazon-eks-pod-identity-webhook,
    https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html

    Args:
        settings: Whether there may be something to lend.
        others: The containers that need none.
    """
    if settings.credentials and not settings.annotations:
        return {}
    return {
        "eks.amazonaws.com/skip-containers": ",".join(others),
        "azure.workload.identity/skip-containers": ";".join(others),
    }


def account(name: str, selector: dict[str, str], settings: Settings) -> Manifest:
    """Who the pods are."""
    content = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name, selector, settings.namespace, annotations=dict(settings.annotations)),
        "automountServiceAccountToken": False,
    }
    says = "Nothing in these pods asks Kubernetes' own API, so none has a token for it."
    if settings.annotations:
        says += " What a cloud lends by the annotations comes as a volume of its own."
    return Manifest(content, says)


def _agent(
    name: str, arguments: Sequence[str], settings: Settings, mounts: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    environment: list[dict[str, Any]] = []
    if settings.public_key:
        environment.append({"name": PUBLIC_KEY_VARIABLE, "value": f"{_KEYS_AT}/{_KEY_FILE}"})
        mounts = [*mounts, {"name": "keys", "mountPath": _KEYS_AT, "readOnly": True}]
    secrets = [{"secretRef": {"name": settings.credentials}}] if settings.credentials else []
    given: dict[str, Any] = {"env": environment, "envFrom": secrets}
    return container(
        name,
        settings.agent_image,
        cpu=_CPU,
        memory=_MEMORY,
        mounts=mounts,
        args=[*arguments, f"--registry={settings.registry}"],
        **{key: value for key, value in given.items() if value},
        **more,
    )
