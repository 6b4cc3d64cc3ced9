"""What gateways counted of one version, series by series, and how many requests that was. Pure.

Which of Envoy's counters has what is told in serving.gateway.envoy_metrics. A request that a client gave up is an error
here: clients are shared by chance, so whoever leaves for reasons of his own does so on both sides alike, and a version
that hangs would otherwise have neither errors nor latencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from model_registry.errors import FormatError
from model_registry.rollout.samples import Interval, LastScrape, Requests, Series, increments, requests_of
from model_registry.serving.gateway import envoy_metrics

# Of what an Envoy counts of a cluster, one that is there before it has answered anything.
CLUSTERS = "envoy_cluster_upstream_rq_completed"

# What stores call the label by which they tell apart two Prometheis that ask the same targets.
_REPLICAS = frozenset({"replica", "prometheus_replica", "receive_replica", "__replica__"})


@dataclass(frozen=True)
class EnvoyCounts:
    """Series of one model, label and version, in one while.

    Attributes:
        clusters: One for each cluster, with a point for each time that it was scraped.
        rest: Answers by class of status.
        rest_given_up: Requests that ended with their connection to the server.
        rest_timeouts: Those among them that are in `rest` too, being out of the gateway's time.
        grpc_good: Calls of status OK.
        grpc_failed: Others.
        grpc_given_up: Calls that were not waited for.
        grpc_timeouts: Those among them that are in `grpc_failed` too.
        latency: Buckets, of both.
    """

    clusters: Sequence[Series]
    rest: Sequence[Series]
    rest_given_up: Sequence[Series]
    rest_timeouts: Sequence[Series]
    grpc_good: Sequence[Series]
    grpc_failed: Sequence[Series]
    grpc_given_up: Sequence[Series]
    grpc_timeouts: Sequence[Series]
    latency: Sequence[Series]

    @classmethod
    def read(cls, series: Callable[..., Sequence[Series]]) -> EnvoyCounts:
        """Reads them.

        Args:
            series: Gives the series of a metric that have some labels, which are keywords.

        Raises:
            FormatError: If two Prometheis scraped the same targets, so that every request would count twice.
        """
        return cls(
            clusters=_once(series(CLUSTERS)),
            rest=_once(series(envoy_metrics.REQUESTS, api="rest")),
            rest_given_up=_once(series(envoy_metrics.ABANDONED, api="rest")),
            rest_timeouts=_once(series(envoy_metrics.TIMEOUTS, api="rest")),
            grpc_good=_once(series(envoy_metrics.GRPC_SUCCESSES, api="grpc")),
            grpc_failed=_once(series(envoy_metrics.GRPC_FAILURES, api="grpc")),
            grpc_given_up=_once(series(envoy_metrics.GRPC_ABANDONED, api="grpc")),
            grpc_timeouts=_once(series(envoy_metrics.TIMEOUTS, api="grpc")),
            latency=_once(series(envoy_metrics.LATENCY)),
        )

    def scraped(self) -> tuple[float, float] | None:
        """From when to when all Envoys were scraped, in Unix seconds; None where none ever was.

        To the last scrape of the one that was seen no more first: what it answered since then nobody knows, so that it
        counts as missing, whether its metrics are out of reach or it has ended. One that was seen later than others
        takes nothing away, since gateways are added where there are more requests.
        """
        seen = self._scrapes().values()
        return (min(map(min, seen)), min(map(max, seen))) if seen else None

    def requests(self, left_out: Sequence[Interval]) -> Requests:
        """How many they were.

        What a cluster had counted by its first scrape in the while is not among them: it may have come before, while
        Prometheus could not reach it.

        Args:
            left_out: Unix seconds whose requests do not count.

        Raises:
            FormatError: If a number is none that it can be.
        """
        # Envoy makes the counter of a class at its first answer. That it was 0 before is told by one that is there from
        # the cluster's beginning.
        answers = [*self._answers(), *(_as_class("2", one, zero=True) for one in self.clusters)]
        answered = requests_of(answers, (), self.latency, left_out)
        counters = [self.rest_given_up, self.rest_timeouts, self.grpc_given_up, self.grpc_timeouts]
        grown = iter(increments([*(one for each in counters for one in each), *answers], left_out))
        rest, rest_timeouts, grpc, grpc_timeouts = (sum(next(grown) for _ in each) for each in counters)
        given_up = max(0, rest - rest_timeouts) + max(0, grpc - grpc_timeouts)
        return replace(answered + Requests(given_up, given_up), behind=self._behind())

    def _behind(self) -> tuple[LastScrape, ...]:
        """The Envoys that were scraped no more while another was, twice: one that is there is scraped in between."""
        scrapes = self._scrapes()
        since = max((sorted(times)[-2] for times in scrapes.values() if len(times) > 1), default=-math.inf)
        last = (LastScrape(max(times), instance) for (_, instance), times in scrapes.items())
        return tuple(sorted(one for one in last if one.time < since))

    def _scrapes(self) -> dict[tuple[str, str], set[float]]:
        """When each Envoy was scraped, by job and instance: once at least."""
        times: dict[tuple[str, str], set[float]] = {}
        for series in (*self.clusters, *self._answers()):
            if series.points:
                envoy = series.labels.get("job", ""), series.labels.get("instance", "")
                times.setdefault(envoy, set()).update(time for time, _ in series.points)
        return times

    def _answers(self) -> list[Series]:
        """Counters of answers of any kind, by class as REST has it: all but 2 is an error."""
        return [
            *self.rest,
            *(_as_class("2", one) for one in self.grpc_good),
            *(_as_class("grpc", one) for one in self.grpc_failed),
        ]


def _as_class(name: str, series: Series, *, zero: bool = False) -> Series:
    points = tuple((time, 0.0) for time, _ in series.points) if zero else series.points
    return Series({**series.labels, envoy_metrics.CLASS: name}, points)


def _once(found: Iterable[Series]) -> tuple[Series, ...]:
    """The same series, none of which another Prometheus tells of too."""
    series = tuple(found)
    seen: set[frozenset[tuple[str, str]]] = set()
    for one in series:
        key = frozenset((name, value) for name, value in one.labels.items() if name not in _REPLICAS)
        if key in seen:
            raise FormatError(
                f"two Prometheis tell of the same {one.labels.get('__name__', 'series')} at "
                f"{one.labels.get('instance', '')!r}",
                hint="ask one of them, or let the store merge them, as Thanos does with --query.replica-label",
            )
        seen.add(key)
    return series
