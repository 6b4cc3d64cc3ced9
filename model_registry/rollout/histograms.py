"""A histogram of latencies, and what its buckets tell of the latency at a rank. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from model_registry.errors import InvalidInputError


@dataclass(frozen=True)
class Histogram:
    """Latencies, counted by bucket.

    Attributes:
        bounds: Upper bound of each bucket in milliseconds, ascending; the last is infinite.
        counts: Samples in each bucket, not cumulative.

    Raises:
        InvalidInputError: If the two are no histogram.
    """

    bounds: tuple[float, ...] = (math.inf,)
    counts: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if len(self.bounds) != len(self.counts) or not self.bounds or self.bounds[-1] != math.inf:
            raise InvalidInputError(
                f"a histogram has a count for each bound, and its last bound is infinite: found {len(self.counts)} "
                f"counts and the bounds {self.bounds}"
            )
        if not all(0 <= low < high for low, high in pairwise((0.0, *self.bounds))):
            raise InvalidInputError(f"a histogram's bounds ascend from above 0: found {self.bounds}")
        if min(self.counts) < 0:
            raise InvalidInputError(f"a histogram's counts are 0 or more: found {self.counts}")

    def __add__(self, other: Histogram) -> Histogram:
        """Both together; one without samples fits any other.

        Raises:
            InvalidInputError: If their buckets differ.
        """
        if not other.samples:
            return self
        if not self.samples:
            return other
        if self.bounds != other.bounds:
            raise InvalidInputError(f"histograms of different buckets have no sum: {self.bounds} and {other.bounds}")
        return Histogram(self.bounds, tuple(mine + its for mine, its in zip(self.counts, other.counts, strict=True)))

    @cached_property
    def _cumulative(self) -> tuple[int, ...]:
        return tuple(accumulate(self.counts))

    @property
    def samples(self) -> int:
        """How many latencies were counted."""
        return self._cumulative[-1]

    @property
    def largest(self) -> float:
        """The last finite bound: of what is above it, nothing more is known. 0 where there is none."""
        return self.bounds[-2] if len(self.bounds) > 1 else 0.0

    def at(self, rank: float) -> float:
        """The latency that `rank` samples do not exceed, interpolated linearly as Prometheus' histogram_quantile does.

        Args:
            rank: Above 0, `samples` at most.

        Returns:
            Milliseconds; infinite in the last bucket.
        """
        bucket = bisect_left(self._cumulative, rank)
        if self.bounds[bucket] == math.inf:
            return math.inf
        below = self._cumulative[bucket - 1] if bucket else 0
        floor = self.bounds[bucket - 1] if bucket else 0.0
        return floor + (self.bounds[bucket] - floor) * (rank - below) / self.counts[bucket]
