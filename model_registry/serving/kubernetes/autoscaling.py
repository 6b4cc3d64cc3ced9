"""When more servers are started, and what tells it. Pure.

Kubernetes learns of both numbers from Prometheus, through prometheus-adapter. TensorFlow Serving's latencies are
microseconds in a histogram whose name begins with a colon; an idle server has no p99, which must not keep a fleet
large: it counts as 0.
"""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from model_registry.serving.fleet import FleetFile
from model_registry.serving.kubernetes import naming
from model_registry.serving.kubernetes.manifest import Manifest
from model_registry.serving.kubernetes.settings import Settings
from model_registry.serving.monitoring.recording_rules import TF_LATENCY

P99 = "slipway_server_latency_p99_seconds"
UTILIZATION = "slipway_server_gpu_utilization"
GPU_UTILIZATION = "DCGM_FI_DEV_GPU_UTIL"

RULES = "slipway-adapter-rules"

_WINDOW = "2m"  # what happened before says little of what is needed now

# Seconds for which a server stays that is not needed. A rollout takes the requests from the fleet that it replaces the
# version of, and gives them all back when it is done: until then that fleet only looks idle. An hour is the most that
# Kubernetes allows (HPAScalingRules of autoscaling/v2); it costs servers that idle for an hour after each peak, so
# fleets that keep their requests do without.
_STAYS, _STAYS_IN_ROLLOUTS = 600, 3_600

_SAYS_OF_ROLLOUTS = """\
No server is ended until it was not needed for an hour, the longest that Kubernetes allows. A rollout takes the \
requests from this fleet and gives them back when the version is promoted: on a fleet that had shrunk meanwhile, and \
for each server that had ended the rollout would wait ten minutes. Where it may take longer than an hour, raise \
minReplicas before."""


def autoscaler(name: str, file: FleetFile, settings: Settings) -> list[Manifest]:
    """What starts and ends servers of a fleet; nothing where their number is fixed."""
    replicas = file.fleets[name].replicas
    if not replicas.scales:
        return []
    targets = []
    if replicas.latency is not None:
        targets.append((P99, f"{round(replicas.latency * 1000)}m"))
    if replicas.gpu_utilization is not None:
        targets.append((UTILIZATION, str(replicas.gpu_utilization)))
    gives_way = _gives_way(name, file)
    content = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": naming.metadata(naming.fleet_object(name), naming.fleet_selector(name), settings.namespace),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": naming.fleet_object(name)},
            "minReplicas": replicas.min,
            "maxReplicas": replicas.max,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {"metric": {"name": metric}, "target": {"type": "AverageValue", "averageValue": value}},
                }
                for metric, value in targets
            ],
            "behavior": {
                # A server that was just started loads its models; until it is there, nothing is better yet.
                "scaleUp": {
                    "stabilizationWindowSeconds": 60,
                    "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
                },
                "scaleDown": {
                    "stabilizationWindowSeconds": _STAYS_IN_ROLLOUTS if gives_way else _STAYS,
                    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
                },
            },
        },
    }
    says = f"The average of {' and '.join(metric for metric, _ in targets)} over the fleet's pods decides; see {RULES}."
    return [Manifest(content, f"{says}\n\n{_SAYS_OF_ROLLOUTS}" if gives_way else says)]


def adapter_rules(file: FleetFile, settings: Settings) -> list[Manifest]:
    """What prometheus-adapter is to make of Prometheus' series; nothing where no fleet scales."""
    rules = []
    scaling = [fleet.replicas for fleet in file.fleets.values() if fleet.replicas.scales]
    if any(replicas.latency is not None for replicas in scaling):
        rules.append(_rule(TF_LATENCY, P99, latency_query()))
    if any(replicas.gpu_utilization is not None for replicas in scaling):
        rules.append(_rule(GPU_UTILIZATION, UTILIZATION, utilization_query()))
    if not rules:
        return []
    written = io.StringIO()
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump({"rules": rules}, written)
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": naming.metadata(RULES, {"app.kubernetes.io/name": RULES}, settings.namespace),
        "data": {"config.yaml": written.getvalue()},
    }
    says = (
        "What prometheus-adapter is to be told, in its own config or its chart's `rules.custom`: this ConfigMap alone "
        "does nothing. Series need the labels namespace and pod, which `slipway render prometheus --kubernetes` gives "
        "them."
    )
    if UTILIZATION in written.getvalue():
        says += (
            f" {GPU_UTILIZATION} is NVIDIA's dcgm-exporter's, which names the pods that use a GPU: it is to be scraped "
            "with honor_labels: true, or these names are the exporter's own."
        )
    return [Manifest(content, says)]


def latency_query() -> str:
    """A template: the p99 in seconds of each pod, 0 where it has been idle."""
    buckets = f"sum by (<<.GroupBy>>, le) (rate({TF_LATENCY}{{<<.LabelMatchers>>}}[{_WINDOW}]))"
    idle = f'sum by (<<.GroupBy>>) ({TF_LATENCY}{{le="+Inf",<<.LabelMatchers>>}}) * 0'
    return f"histogram_quantile(0.99, {buckets}) / 1e6 >= 0 or {idle}"


def utilization_query() -> str:
    """A template: the percent of its GPU's time that each pod takes."""
    return f"avg by (<<.GroupBy>>) (avg_over_time({GPU_UTILIZATION}{{<<.LabelMatchers>>}}[{_WINDOW}]))"


def _gives_way(name: str, file: FleetFile) -> bool:
    """Whether rollouts take the requests from a fleet: it follows the label that they replace, others the canary's."""
    stable, canary = file.gateway.stable, file.gateway.canary
    others = any(canary in file.labels(other) for other in file.fleets if other != name)
    return others and stable in file.labels(name) and canary not in file.labels(name)


def _rule(series: str, metric: str, query: str) -> dict[str, Any]:
    return {
        "seriesQuery": f'{series}{{namespace!="",pod!=""}}',
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
        "name": {"matches": f"^{series}$", "as": metric},
        "metricsQuery": query,
    }
