"""What a sync agent counts and measures of itself, for Prometheus.

Counters are kept here; everything else is read off the agent's report at the moment somebody asks. A series whose
`model` is empty speaks of the agent as a whole.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from model_registry import __version__
from model_registry.serving.metric_families import Lag, rendered
from model_registry.serving.sync.awaited_label import given_up
from model_registry.serving.sync.sync_report import AgentReport, VersionState

Failure = Literal["download", "load", "registry", "server", "disk"]
_OF_A_MODEL: tuple[Failure, ...] = ("download", "load", "disk")
_OF_THE_AGENT: tuple[Failure, ...] = ("registry", "server", "disk")


class SyncMetrics:
    """The metrics of one agent: several in one process do not mix. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins at zero.

        Args:
            clock: Tells seconds that never go back.
        """
        self._lag = Lag(clock)
        self._lock = threading.Lock()
        self._downloads: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._failures: Counter[tuple[str, Failure]] = Counter(dict.fromkeys((("", kind) for kind in _OF_THE_AGENT), 0))

    def downloaded(self, model: str, size: int) -> None:
        """Counts a version that was downloaded and verified.

        Args:
            model: Whose version.
            size: Its bytes.
        """
        with self._lock:
            self._downloads[model] += 1
            self._bytes[model] += size

    def failed(self, model: str, what: Failure) -> None:
        """Counts a failure.

        Args:
            model: Whose; empty where it is the agent's own, such as a registry out of reach.
            what: What failed.
        """
        with self._lock:
            self._failures[model, what] += 1

    def observe(self, report: AgentReport) -> None:
        """Notes since when each model's server answers otherwise than the registry wants.

        An agent calls it at each look, so that the lag does not begin only when somebody asks for it.
        """
        self._lag.observe(
            name for name, model in report.models.items() if not (model.settled and report.server_reachable)
        )

    def render(self, report: AgentReport) -> bytes:
        """Everything in Prometheus' text format, of `CONTENT_TYPE`.

        Args:
            report: How things stand now.
        """
        self.observe(report)
        lag = self._lag.family(
            "slipway_sync_lag_seconds",
            "Seconds since the server began to answer otherwise than the registry wants; 0 where it answers so.",
            report.models,
        )
        return rendered([*self._counted(report), lag, *_measured(report)])

    def _counted(self, report: AgentReport) -> Iterator[Metric]:
        with self._lock:
            for model in report.models:  # from zero on: Prometheus sees no increase in a series that begins at one
                self._downloads[model] += 0
                self._bytes[model] += 0
                for kind in _OF_A_MODEL:
                    self._failures[model, kind] += 0
            downloads = CounterMetricFamily(
                "slipway_sync_downloads", "Versions that were downloaded whole and verified.", labels=["model"]
            )
            size = CounterMetricFamily(
                "slipway_sync_downloaded_bytes", "Bytes of the versions that were downloaded.", labels=["model"]
            )
            failures = CounterMetricFamily(
                "slipway_sync_failures",
                "What failed: a download, a load by the server, asking the registry or the server, room on the disk.",
                labels=["model", "kind"],
            )
            for model, count in sorted(self._downloads.items()):
                downloads.add_metric([model], count)
            for model, count in sorted(self._bytes.items()):
                size.add_metric([model], count)
            for of, count in sorted(self._failures.items()):
                failures.add_metric(of, count)
        yield from (downloads, size, failures)


def _measured(report: AgentReport) -> Iterator[Metric]:
    """What the report alone tells."""
    yield InfoMetricFamily("slipway_sync", "The agent.", value={"agent": report.agent, "version": __version__})
    yield GaugeMetricFamily(
        "slipway_sync_server_up", "1 if the server answered when it was asked last.", value=report.server_reachable
    )
    if report.ready is not None:
        yield GaugeMetricFamily("slipway_sync_ready", "1 if the server is fit for requests.", value=report.ready)
    age = GaugeMetricFamily("slipway_sync_registry_age_seconds", "Seconds since the registry was read last.", labels=())
    if report.registry_age is not None:
        age.add_metric([], report.registry_age)
    revision = GaugeMetricFamily(
        "slipway_sync_revision", "Revision of the model's labels in the registry that was read last.", labels=["model"]
    )
    versions = GaugeMetricFamily(
        "slipway_sync_versions", "Versions beside this server, by where they stand.", labels=["model", "state"]
    )
    wanted = GaugeMetricFamily(
        "slipway_sync_wanted_version", "The version that the label names in the registry.", labels=["model", "label"]
    )
    serving = GaugeMetricFamily(
        "slipway_sync_serving_version",
        "The version that the server answered with under the label when it was asked last.",
        labels=["model", "label"],
    )
    gave_up = GaugeMetricFamily(
        "slipway_sync_given_up_version",
        "The version that the label names in the registry, where it failed to load and is not tried again until "
        "somebody asks.",
        labels=["model", "label"],
    )
    for name, model in sorted(report.models.items()):
        revision.add_metric([name], model.revision)
        states = Counter(version.state for version in model.versions)
        for state in get_args(VersionState):
            versions.add_metric([name, state], states[state])
        for label, version in sorted(model.wanted.items()):
            wanted.add_metric([name, label], version)
            if given_up(report, name, version):
                gave_up.add_metric([name, label], version)
        for label, version in sorted(model.serving.items()):
            serving.add_metric([name, label], version)
    yield from (age, revision, versions, wanted, serving, gave_up)
