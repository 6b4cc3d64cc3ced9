"""What the metrics of every agent share: Prometheus' text format, and since when something is not as it is wanted.

The names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def rendered(families: Iterable[Metric]) -> bytes:
    """Families, and what the process takes of memory, time and descriptors, in Prometheus' text format."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Families(list(families)))
    return generate_latest(registry)


class Lag:
    """Since when each model is not as it is wanted. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins with none.

        Args:
            clock: Tells seconds that never go back.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}

    def observe(self, unsettled: Iterable[str]) -> None:
        """Notes which models are not as they are wanted now."""
        now = self._clock()
        with self._lock:
            self._since = {name: self._since.get(name, now) for name in unsettled}

    def family(self, name: str, documentation: str, models: Iterable[str]) -> Metric:
        """The seconds of each model; 0 for one that is as it is wanted."""
        lag = GaugeMetricFamily(name, documentation, labels=["model"])
        with self._lock:
            now = self._clock()
            for model in sorted(models):
                lag.add_metric([model], max(0.0, now - self._since.get(model, now)))
        return lag


class _Families(Collector):
    """Families that are made already, as a registry takes them."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
