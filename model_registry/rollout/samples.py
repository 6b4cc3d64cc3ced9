"""From the raw points of Prometheus to requests counted: what a canary and stable are judged by. Pure.

Prometheus' own `increase()` would do for a graph and not for a verdict: it extrapolates to the edges of its window,
misses what a counter counted before it was first seen (Envoy makes the counter of a status class at its first answer,
so the first errors of a canary would be among them), and cannot leave out the time in which a model was being loaded.

What the points say comes from elsewhere and is checked: a number that no counter can have is a FormatError.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from model_registry.errors import FormatError, InvalidInputError
from model_registry.rollout.histograms import Histogram

Interval = tuple[float, float]  # unix seconds, both ends in it

# Series that agree in these are counted by one Envoy cluster, so that they start and restart together.
_ORIGIN = ("job", "instance", "model", "label", "version", "api")

_CLASS = "envoy_response_code_class"
_LARGEST = 2.0**53  # above it a float counts no longer by one


@dataclass(frozen=True, order=True)
class LastScrape:
    """When an Envoy was scraped last.

    Attributes:
        time: In Unix seconds.
        instance: As Prometheus calls it.
    """

    time: float
    instance: str


@dataclass(frozen=True)
class Requests:
    """What a version answered in a while.

    Attributes:
        total: Requests that had an answer.
        errors: Those whose answer was an error, `total` at most.
        latency: How long they took. Envoy flushes histograms apart from counters, so it may hold a few more or less.
        behind: The Envoys that were scraped no more while others were, whoever was scraped longest ago first: what
            they answered since then is not among these requests.

    Raises:
        InvalidInputError: If there are more errors than requests, or less than none.
    """

    total: int = 0
    errors: int = 0
    latency: Histogram = Histogram()  # noqa: RUF009 (it is frozen)
    behind: tuple[LastScrape, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.errors <= self.total:
            raise InvalidInputError(f"of {self.total} requests {self.errors} cannot be errors")

    def __add__(self, other: Requests) -> Requests:
        """Both together.

        Raises:
            InvalidInputError: If their histograms have different buckets.
        """
        behind = tuple(sorted({*self.behind, *other.behind}))
        return Requests(self.total + other.total, self.errors + other.errors, self.latency + other.latency, behind)


@dataclass(frozen=True)
class Series:
    """One time series, as Prometheus answers it.

    Attributes:
        labels: Its labels; `__name__` may be among them.
        points: (unix seconds, value), in the order of time.
    """

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


def loading_intervals(series: Iterable[Series]) -> tuple[Interval, ...]:
    """When a server was loading a model, which slows down all that it serves meanwhile.

    Args:
        series: Gauges such as `slipway_sync_versions{state="LOADING"}`, one for each server.

    Returns:
        Ascending and apart from each other: each from the point before the first above 0 to the point after the last,
        because what went on between two points is unknown. Without a point before or after, it has no end there.

    Raises:
        FormatError: If a value or a time is none.
    """
    found = []
    for gauge in series:
        _check(gauge)
        before, began = -math.inf, None
        for time, value in gauge.points:
            if value > 0:
                began = before if began is None else began
            elif began is not None:
                found.append((began, time))
                began = None
            before = time
        if began is not None:
            found.append((began, math.inf))
    return _united(found)


def increments(series: Sequence[Series], left_out: Sequence[Interval] = ()) -> tuple[int, ...]:
    """By how much each counter grew, from each of its points to the next.

    A counter that drops was restarted and counts from 0 again; with it all that the same Envoy cluster counts, also
    what has since grown above its old value. A counter that appears later than others of its cluster began at 0 then.

    Args:
        series: Counters; hand over all of a cluster together.
        left_out: Unix seconds. What grew between two points is not counted if any of that time is in one of these.

    Returns:
        One number for each series.

    Raises:
        FormatError: If a value is none that a counter can have, or times do not ascend.
    """
    for counter in series:
        _check(counter)
    clusters: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for index, counter in enumerate(series):
        clusters[tuple(counter.labels.get(name) for name in _ORIGIN)].append(index)
    grown = [0] * len(series)
    for members in clusters.values():
        times = sorted({time for index in members for time, _ in series[index].points})
        restarts = {
            after for index in members for (_, was), (after, value) in pairwise(series[index].points) if value < was
        }
        for index in members:
            grown[index] = _grown(series[index].points, times, restarts, left_out)
    return tuple(grown)


def requests_of(
    status_class_series: Sequence[Series],
    grpc_failure_series: Sequence[Series],
    bucket_series: Sequence[Series],
    left_out: Sequence[Interval] = (),
) -> Requests:
    """What a version answered, summed over gateways and interfaces.

    Args:
        status_class_series: `envoy_cluster_upstream_rq_xx`, with the class in `envoy_response_code_class`. What is not
            of class 2 is an error.
        grpc_failure_series: gRPC answers that failed with HTTP status 200, as gRPC has it: errors too.
        bucket_series: `envoy_cluster_upstream_rq_time_bucket`, cumulative by `le` in milliseconds.
        left_out: As `increments` takes them.

    Raises:
        FormatError: If a number is none that it can be, or the buckets of two gateways differ.
    """
    series = [*status_class_series, *grpc_failure_series, *bucket_series]
    grown = increments(series, left_out)
    total = errors = 0
    answers = len(status_class_series)
    for counter, count in zip(status_class_series, grown[:answers], strict=True):
        total += count
        errors += count if counter.labels.get(_CLASS) != "2" else 0
    buckets = answers + len(grpc_failure_series)
    errors += sum(grown[answers:buckets])
    return Requests(total, min(errors, total), _histogram(bucket_series, grown[buckets:]))


def _grown(
    points: Sequence[tuple[float, float]], times: Sequence[float], restarts: set[float], left_out: Sequence[Interval]
) -> int:
    """Growth of one counter, at the `times` at which its cluster was seen and began anew at `restarts`."""
    earlier = [time for time in times if points and time < points[0][0]]
    born = [(earlier[-1], 0.0)] if earlier else []
    total = 0.0
    for (since, was), (until, value) in pairwise((*born, *points)):
        if any(since < end and begin < until for begin, end in left_out):
            continue
        total += value if any(since < restart <= until for restart in restarts) else value - was
    return round(total)


def _histogram(series: Sequence[Series], grown: Sequence[int]) -> Histogram:
    """The sum of all histograms, from how their cumulative buckets grew."""
    histograms: dict[frozenset[tuple[str, str]], dict[float, int]] = defaultdict(dict)
    for bucket, count in zip(series, grown, strict=True):
        origin = frozenset((name, value) for name, value in bucket.labels.items() if name != "le")
        histograms[origin][_bound(bucket)] = count
    total = Histogram()
    expected: tuple[float, ...] | None = None
    for cumulative in histograms.values():
        bounds = tuple(sorted(cumulative))
        if bounds[-1] != math.inf:
            raise FormatError(f"a histogram lacks its bucket le=+Inf: found {_listed(bounds)}", hint=_SCRAPED)
        if expected is not None and bounds != expected:
            raise FormatError(
                f"the buckets of two gateways differ: le is {_listed(expected)} in one, {_listed(bounds)} in the other",
                hint="bring all gateways to one release of Slipway, then resume",
            )
        expected = bounds
        counts = tuple(after - before for before, after in pairwise((0, *(cumulative[bound] for bound in bounds))))
        if min(counts) < 0:
            raise FormatError(
                f"a bucket grew by less than a smaller one in it: le {_listed(bounds)} by "
                f"{[cumulative[bound] for bound in bounds]}",
                hint=_SCRAPED,
            )
        total += Histogram(bounds, counts)
    return total


_SCRAPED = "is it Envoy that Prometheus scrapes there, and does nothing relabel what it says?"


def _bound(bucket: Series) -> float:
    """`le` of a bucket."""
    text = bucket.labels.get("le", "")
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if not bound > 0:
        raise FormatError(f"the bound of a bucket is a number of milliseconds: found le={text!r}", hint=_SCRAPED)
    return bound


def _check(series: Series) -> None:
    """Refuses points that Prometheus has of no counter and of no gauge of ours."""
    for time, value in series.points:
        if not (math.isfinite(time) and 0 <= value <= _LARGEST):
            raise FormatError(
                f"a point of {_named(series)} is no count: expected 0 to 2^53, found {value} at {time}", hint=_SCRAPED
            )
    for (before, _), (after, _) in pairwise(series.points):
        if not before < after:
            raise FormatError(f"the points of {_named(series)} do not ascend: {after} comes after {before}")


def _united(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    united: list[Interval] = []
    for begin, end in sorted(intervals):
        if united and begin <= united[-1][1]:
            united[-1] = (united[-1][0], max(united[-1][1], end))
        else:
            united.append((begin, end))
    return tuple(united)


def _listed(bounds: Sequence[float]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds)


def _named(series: Series) -> str:
    labels = ",".join(f"{name}={value!r}" for name, value in sorted(series.labels.items()) if name != "__name__")
    return f"{series.labels.get('__name__', '')}{{{labels}}}"
