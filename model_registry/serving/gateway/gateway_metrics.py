"""What a gateway's agent counts and measures of itself, for Prometheus.

What is in force comes from Envoy itself: while that does not answer nobody knows it, and the series are not there.
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
from model_registry.serving.gateway.gateway_report import GatewayReport, RoutedReport
from model_registry.serving.metric_families import Lag, rendered

Failure = Literal["registry", "envoy", "disk"]


class GatewayMetrics:
    """The metrics of one agent: several in one process do not mix. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins at zero.

        Args:
            clock: Tells seconds that never go back.
        """
        self._lag = Lag(clock)
        self._lock = threading.Lock()
        self._failures: Counter[Failure] = Counter(dict.fromkeys(get_args(Failure), 0))

    def failed(self, model: str, what: Failure) -> None:
        """Counts a failure.

        Args:
            model: Empty: each is the agent's own.
            what: What failed.
        """
        del model
        with self._lock:
            self._failures[what] += 1

    def observe(self, report: GatewayReport) -> None:
        """Notes since when Envoy shares each model's requests otherwise than the registry wants.

        An agent calls it at each look, so that the lag does not begin only when somebody asks for it. A model that is
        to have no route, and has none, does not lag, whatever problem the report tells of it: it would for ever. Of one
        whose state cannot be read nobody knows that.
        """
        self._lag.observe(
            name
            for name, model in report.models.items()
            if not (report.envoy_reachable and (model.settled or _needs_no_route(model)))
        )

    def render(self, report: GatewayReport) -> bytes:
        """Everything in Prometheus' text format, of `CONTENT_TYPE`.

        Args:
            report: How things stand now.
        """
        self.observe(report)
        lag = self._lag.family(
            "slipway_gateway_lag_seconds",
            "Seconds since Envoy began to share requests otherwise than the registry wants; 0 where it shares them so.",
            report.models,
        )
        return rendered([self._counted(), lag, *_measured(report)])

    def _counted(self) -> Metric:
        failures = CounterMetricFamily(
            "slipway_gateway_failures", "What failed: asking the registry or Envoy, writing a file.", labels=["kind"]
        )
        with self._lock:
            for kind, count in sorted(self._failures.items()):
                failures.add_metric([kind], count)
        return failures


def _needs_no_route(model: RoutedReport) -> bool:
    """Whether no route is wanted and none is in force, as Envoy tells: of one that is silent nobody knows."""
    return model.unrouted and model.revision is None


def _measured(report: GatewayReport) -> Iterator[Metric]:
    """What the report alone tells."""
    yield InfoMetricFamily("slipway_gateway", "The agent.", value={"agent": report.agent, "version": __version__})
    yield GaugeMetricFamily(
        "slipway_gateway_envoy_up", "1 if Envoy answered when it was asked last.", value=report.envoy_reachable
    )
    if report.ready is not None:
        yield GaugeMetricFamily("slipway_gateway_ready", "1 if Envoy is fit for requests.", value=report.ready)
    age = GaugeMetricFamily(
        "slipway_gateway_registry_age_seconds", "Seconds since the registry was read last.", labels=()
    )
    if report.registry_age is not None:
        age.add_metric([], report.registry_age)
    weight = GaugeMetricFamily(
        "slipway_gateway_weight", "Percent of the requests that Envoy sends to canary.", labels=["model"]
    )
    wanted = GaugeMetricFamily(
        "slipway_gateway_wanted_weight", "Percent of the requests that are to go to canary.", labels=["model"]
    )
    revision = GaugeMetricFamily(
        "slipway_gateway_revision", "Revision of the model's state that Envoy's routes follow.", labels=["model"]
    )
    for name, model in sorted(report.models.items()):
        wanted.add_metric([name], model.wanted_weight)
        if model.weight is not None:
            weight.add_metric([name], model.weight)
        if model.revision is not None:
            revision.add_metric([name], model.revision)
    yield from (age, weight, wanted, revision)
