"""The three metrics that a canary is judged by, and how each is read from requests. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from model_registry.rollout.bounds import largest_quantile, largest_share, least_quantile, least_share
from model_registry.rollout.samples import Requests


class Metric(Protocol):
    """A number that a version is better for having less of.

    `least` and `largest` are its confidence bounds, each wrong with a chance of `level` at most, if there were `grown`
    times the requests and they were alike. They need one sample at least, as `measured` does.
    """

    @property
    def name(self) -> str:
        """As in Evidence."""
        ...

    def samples(self, requests: Requests) -> int:
        """How many requests it rests on."""
        ...

    def measured(self, requests: Requests) -> float:
        """Its value."""
        ...

    def least(self, requests: Requests, level: float, grown: float = 1) -> float:
        """Its lower bound."""
        ...

    def largest(self, requests: Requests, level: float, grown: float = 1) -> float:
        """Its upper bound; infinite where there is none."""
        ...

    def allowed(self, value: float, margin: float) -> float:
        """The most that the canary may have where stable has `value`."""
        ...


@dataclass(frozen=True)
class ErrorRate:
    """Share of the requests that were answered with an error."""

    name: ClassVar[str] = "error_rate"

    def samples(self, requests: Requests) -> int:
        """All requests."""
        return requests.total

    def measured(self, requests: Requests) -> float:
        """A share."""
        return requests.errors / requests.total

    def least(self, requests: Requests, level: float, grown: float = 1) -> float:
        """By Clopper and Pearson."""
        return least_share(requests.errors * grown, requests.total * grown, level)

    def largest(self, requests: Requests, level: float, grown: float = 1) -> float:
        """By Clopper and Pearson."""
        return largest_share(requests.errors * grown, requests.total * grown, level)

    def allowed(self, value: float, margin: float) -> float:
        """Absolute, since twice next to nothing is next to nothing."""
        return value + margin


@dataclass(frozen=True)
class Quantile:
    """A quantile of the latency, in milliseconds.

    Attributes:
        name: As in Evidence.
        share: Of the requests that are faster.
    """

    name: str
    share: float

    def samples(self, requests: Requests) -> int:
        """All requests whose latency was counted."""
        return requests.latency.samples

    def measured(self, requests: Requests) -> float:
        """As `histogram_quantile` answers it: the last finite bound at most."""
        latency = requests.latency
        return min(latency.at(self.share * latency.samples), latency.largest)

    def least(self, requests: Requests, level: float, grown: float = 1) -> float:
        """By order statistics."""
        return least_quantile(requests.latency, self.share, level, grown=grown)

    def largest(self, requests: Requests, level: float, grown: float = 1) -> float:
        """By order statistics."""
        return largest_quantile(requests.latency, self.share, level, grown=grown)

    def allowed(self, value: float, margin: float) -> float:
        """Relative, since nobody knows beforehand how long a model takes."""
        return value * (1 + margin)


ERROR_RATE, P50, P99 = ErrorRate(), Quantile("p50", 0.50), Quantile("p99", 0.99)
METRICS: tuple[Metric, ...] = (ERROR_RATE, P50, P99)
