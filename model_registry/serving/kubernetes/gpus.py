"""Where the pods of a fleet go, and on which GPU. Pure."""

from __future__ import annotations

from typing import Any

from model_registry.serving.fleet import Fleet, FleetFile
from model_registry.serving.kubernetes.naming import SHARED_GPU, fleet_selector
from model_registry.serving.kubernetes.pods import spread

_PRODUCT = "nvidia.com/gpu.product"
_HOST = "kubernetes.io/hostname"


def placement(name: str, fleet: Fleet) -> dict[str, Any]:
    """Of a pod's spec, what says on which machine it may be."""
    where: dict[str, Any] = {}
    if fleet.gpu:
        if fleet.gpu.product:
            where["nodeSelector"] = {_PRODUCT: fleet.gpu.product}
        # Clusters keep machines with GPUs for pods that want one.
        where["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        if fleet.gpu.shared:
            where["affinity"] = _sharing(name, fleet.gpu.shared)
    return {**where, "topologySpreadConstraints": spread(fleet_selector(name))}


def gpu_labels(fleet: Fleet) -> dict[str, str]:
    """What the pods that share a GPU find each other by."""
    return {SHARED_GPU: fleet.gpu.shared} if fleet.gpu and fleet.gpu.shared else {}


def says(name: str, file: FleetFile) -> str:
    """What whoever runs the cluster has to set up for a fleet, and what then holds."""
    fleet = file.fleets[name]
    if not fleet.gpu:
        return ""
    gpu = fleet.gpu
    text = (
        f"Each server has one {gpu.resource}, which NVIDIA's device plug-in offers: for more GPUs, more servers. "
        "While the fleet is updated, it needs one more than it has servers."
    )
    if gpu.product:
        text += f" GPU feature discovery labels the machines with {_PRODUCT}."
    if gpu.shared:
        others = _sharers(file, gpu.shared)
        total = sum(others.values())
        text += (
            f"\n\nOne GPU is shared by the fleets {', '.join(others)}, whose servers take {total:g} of its memory "
            f"together (this one's {gpu.memory_fraction:g}). To be set up in the cluster: the device plug-in's "
            "time-slicing (sharing.timeSlicing: resources: {name: nvidia.com/gpu, replicas: "
            f"{len(others)} or more}}; with renameByDefault the resource is nvidia.com/gpu.shared, without it the "
            "product's label ends in -SHARED). Slices have no memory of their own: what keeps the servers apart is "
            "their fractions, and that no two of one fleet are on the same machine."
        )
    return text


def _sharers(file: FleetFile, shared: str) -> dict[str, float]:
    """The fleets that share a GPU, and the fraction of its memory that each takes."""
    gpus = {name: fleet.gpu for name, fleet in file.fleets.items() if fleet.gpu and fleet.gpu.shared == shared}
    return {name: gpu.memory_fraction or 0.0 for name, gpu in gpus.items()}


def _sharing(name: str, shared: str) -> dict[str, Any]:
    # With two of one fleet on a GPU, the fractions would be more than one.
    apart = {"topologyKey": _HOST, "labelSelector": {"matchLabels": fleet_selector(name)}}
    beside = {"topologyKey": _HOST, "labelSelector": {"matchLabels": {SHARED_GPU: shared}}}
    return {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]},
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": beside}]
        },
    }
