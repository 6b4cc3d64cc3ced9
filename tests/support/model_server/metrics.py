"""The two families of metrics that monitoring of a fleet is built on, in the text that Prometheus reads.

Names begin with a colon, latencies are microseconds, and no label tells the version.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections import Counter

# Read from its source: 33 bounds from 10 us, each 1.8 times the one before.
_BOUNDS = tuple(10 * 1.8**power for power in range(33))
_COUNT, _LATENCY = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"


class Metrics:
    """Counts of one server."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._buckets: dict[tuple[str, str, str], list[int]] = {}
        self._sums: Counter[tuple[str, str, str]] = Counter()

    def record(self, model: str, status: str, api: str, entrypoint: str, micros: int) -> None:
        """Counts a request.

        Args:
            model: The name it asked for.
            status: The code of its answer; only an `OK` has a latency (read from its source).
            api: `Predict` over gRPC, `predict` over REST (read from its source).
            entrypoint: `GRPC` or `REST`.
            micros: How long it took.
        """
        key = (model, api, entrypoint)
        with self._mutex:
            self._requests[model, status] += 1
            if status == "OK":
                buckets = self._buckets.setdefault(key, [0] * (len(_BOUNDS) + 1))
                buckets[bisect.bisect_left(_BOUNDS, micros)] += 1
                self._sums[key] += micros

    def render(self) -> str:
        """What a scrape reads."""
        with self._mutex:
            lines = [f"# TYPE {_COUNT} counter"]
            for (model, status), count in self._requests.items():
                lines.append(f'{_COUNT}{{model_name="{model}",status="{status}"}} {count}')
            lines.append(f"# TYPE {_LATENCY} histogram")
            for (model, api, entrypoint), buckets in self._buckets.items():
                labels = f'model_name="{model}",API="{api}",entrypoint="{entrypoint}"'
                totals = list(itertools.accumulate(buckets))
                for bound, total in zip((*map(_number, _BOUNDS), "+Inf"), totals, strict=True):
                    lines.append(f'{_LATENCY}_bucket{{{labels},le="{bound}"}} {total}')
                lines.append(f"{_LATENCY}_sum{{{labels}}} {self._sums[model, api, entrypoint]}")
                lines.append(f"{_LATENCY}_count{{{labels}}} {totals[-1]}")
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:.6g}"
