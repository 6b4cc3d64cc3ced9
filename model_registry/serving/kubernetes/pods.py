"""What all pods have in common: who they run as, what they may, and how they end. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

# Of the user in the agent's image. TensorFlow Serving's and Envoy's images run as root unless told otherwise; neither
# needs to, and of one user all may read what the agent brings.
USER = 10001

TMP = "/tmp"  # noqa: S108 - a mount of the container's own

# Seconds until nobody sends a pod requests any more that is about to end: its address leaves the Service, CoreDNS keeps
# an answer for up to 30, and Envoy asks every 5.
LEAVE = 40
# And until everybody does who is to, once it is ready.
NOTICED = 40
_LAST = 10

_PRIVILEGED = 1024


def drain(timeout: float) -> int:
    """Seconds that a pod goes on for once it is to end: until nobody sends more, and what was sent is answered.

    Args:
        timeout: Seconds that a request may take.
    """
    return LEAVE + math.ceil(timeout)


def pod(timeout: float, *, lowest_port: int = _PRIVILEGED, **more: Any) -> dict[str, Any]:
    """A pod's spec: without a token for Kubernetes' own API, of one user, with time to end.

    Args:
        timeout: Seconds that a request may take.
        lowest_port: That something in it listens on.
        more: Containers, volumes and where it goes.
    """
    # Not every runtime lets a user without capabilities open ports below 1024. It holds for this pod alone, and is
    # among the sysctls that Kubernetes calls safe: https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/
    sysctls = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}] if lowest_port < _PRIVILEGED else []
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain(timeout) + _LAST,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
            **({"sysctls": sysctls} if sysctls else {}),
        },
        **more,
    }


def container(
    name: str,
    image: str,
    *,
    cpu: str,
    memory: str,
    mounts: list[dict[str, Any]],
    more_limits: dict[str, Any] | None = None,
    more_requests: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A container that may write where a volume is mounted for it, and nowhere else.

    What it may have is what is kept for it (the class Guaranteed): a server that others make slow is a server whose
    p99 tells nothing of its version.

    Args:
        name: Its name.
        image: Its image.
        cpu: How much CPU it gets.
        memory: How much memory.
        mounts: Its volumes, besides /tmp.
        more_limits: Beyond those, such as a GPU.
        more_requests: What is kept for it beyond its limits.
        more: The rest of it.
    """
    limits = {"cpu": cpu, "memory": memory, **(more_limits or {})}
    return {
        "name": name,
        "image": image,
        **more,
        "resources": {"requests": {**limits, **(more_requests or {})}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": TMP}],
    }


def tmp() -> dict[str, Any]:
    """The volume for what programs put aside."""
    return {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}


def rolling() -> dict[str, Any]:
    """How one set of pods makes room for the next: a new one is there, ready and known, before an old one ends."""
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def spread(selector: dict[str, str]) -> list[dict[str, Any]]:
    """Pods over machines and zones, as evenly as there is room for; each set of pods by itself during an update."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def checksum(*files: dict[str, str]) -> str:
    """Changes with the files, so that pods that read them once are started anew."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
