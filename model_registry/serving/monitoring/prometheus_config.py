"""What Prometheus is told of where to ask: prometheus.yml. Pure.

Four jobs, whose names the rules and dashboards rely on: `tf-serving`, a server's REST port, which has metrics once
`--monitoring_config_file` says so; `slipway-sync`, the agent beside it; `envoy`, a gateway's admin port; and
`slipway-gateway`, the agent beside that. Each is found in one of three ways: named one by one, in files that Prometheus
watches, or as the pods of a Kubernetes namespace.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML

from model_registry.errors import InvalidInputError
from model_registry.serving.monitoring import monitoring_config

JOBS = ("tf-serving", "slipway-sync")
GATEWAY_JOBS = ("slipway-gateway", "envoy")
_PATHS = {"tf-serving": monitoring_config.PATH, "envoy": "/stats/prometheus"}

RULES = "slipway-rules.yaml"

# The rules look back five minutes, and want four samples in them at least.
LONGEST_INTERVAL = 60

_FLEET = "app_kubernetes_io_instance"  # the label of a fleet's pods with its name, as Prometheus writes it

_TARGET = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):(?P<port>[1-9][0-9]{0,4})")
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")

_HEAD = """\
# Where Prometheus finds TensorFlow Serving, Envoy and Slipway's agents.
#
#   promtool check config prometheus.yml
#
# Written by `slipway render prometheus`; the rules are what `slipway render alerts` prints.
"""


@dataclass(frozen=True)
class Scraping:
    """What is asked, and how often.

    Attributes:
        targets: HOST:PORT of each target, by job. Jobs of gateways without any are left out.
        folder: Where files name the targets instead, `JOB.json` or `JOB.yaml` each, as Prometheus sees it.
        namespace: The Kubernetes namespace whose pods are the targets instead. A container's port belongs to the job
            that it is named after.
        gateway: Whether there are gateways, where that cannot be told from `targets`.
        rules: The files of rules, as Prometheus sees them.
        alertmanagers: HOST:PORT of each.
        interval: Seconds from one time to the next.
    """

    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    folder: str = ""
    namespace: str = ""
    gateway: bool = True
    rules: tuple[str, ...] = (RULES,)
    alertmanagers: tuple[str, ...] = ()
    interval: int = 15

    def __post_init__(self) -> None:
        if sum(map(bool, (self.targets, self.folder, self.namespace))) != 1:
            raise InvalidInputError(
                "expected targets, a folder of files that name them, or a Kubernetes namespace: one of the three",
                hint="name a server by --tf-serving HOST:8501 and its agent by --sync HOST:8502",
            )
        if unknown := self.targets.keys() - {*JOBS, *GATEWAY_JOBS}:
            raise InvalidInputError(f"no such job: {', '.join(sorted(unknown))}")
        for address in (*(one for job in self.targets.values() for one in job), *self.alertmanagers):
            _check_target(address)
        if self.namespace and not _NAMESPACE.fullmatch(self.namespace):
            raise InvalidInputError(f"{self.namespace[:100]!r} is no name of a Kubernetes namespace")
        if not 1 <= self.interval <= LONGEST_INTERVAL:
            raise InvalidInputError(
                f"the interval is {self.interval} s: expected 1 to {LONGEST_INTERVAL}",
                hint="the rules look back five minutes, in which they want four samples at least",
            )

    @property
    def jobs(self) -> tuple[str, ...]:
        """Those that are asked."""
        if self.targets:
            return tuple(job for job in (*JOBS, *GATEWAY_JOBS) if self.targets.get(job))
        return (*JOBS, *(GATEWAY_JOBS if self.gateway else ()))


def to_text(scraping: Scraping) -> str:
    """The file's content."""
    interval = f"{scraping.interval}s"
    document: dict[str, Any] = {"global": {"scrape_interval": interval, "evaluation_interval": interval}}
    # No longer than the interval, which Prometheus refuses; its own default is 10 s.
    document["global"]["scrape_timeout"] = f"{min(10, scraping.interval)}s"
    if scraping.rules:
        document["rule_files"] = list(scraping.rules)
    if scraping.alertmanagers:
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": list(scraping.alertmanagers)}]}]}
    document["scrape_configs"] = [_job(job, scraping) for job in scraping.jobs]
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    written = io.StringIO()
    yaml.dump(document, written)
    return _HEAD + written.getvalue()


def _job(job: str, scraping: Scraping) -> dict[str, Any]:
    config: dict[str, Any] = {"job_name": job}
    if path := _PATHS.get(job):
        config["metrics_path"] = path
    if scraping.folder:
        folder = scraping.folder.rstrip("/")
        config["file_sd_configs"] = [{"files": [f"{folder}/{job}.json", f"{folder}/{job}.yaml"]}]
    elif scraping.namespace:
        config["kubernetes_sd_configs"] = [{"role": "pod", "namespaces": {"names": [scraping.namespace]}}]
        config["relabel_configs"] = _relabelled(job)
    else:
        config["static_configs"] = [{"targets": list(scraping.targets[job])}]
    return config


def _relabelled(job: str) -> list[dict[str, Any]]:
    """Of all ports of all pods, those of the job.

    A pod that has ended is none; nor is one that has not begun, which has an address all the same: a canary's waits in
    Init for its label, for days.
    """
    rules = [
        {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": job, "action": "keep"},
        {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Pending|Succeeded|Failed", "action": "drop"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    ]
    if job in JOBS:
        rules.append({"source_labels": [f"__meta_kubernetes_pod_label_{_FLEET}"], "target_label": "fleet"})
    return rules


def _check_target(address: str) -> None:
    found = _TARGET.fullmatch(address)
    if not found or int(found["port"]) > 65535:
        raise InvalidInputError(
            f"{address[:100]!r} is no target: expected HOST:PORT, such as serving-1:8501 or [::1]:8501",
            hint="without http:// and without a path: the job has its own",
        )
