"""What a rollout knows of the world outside the registry, and all of it comes from Prometheus.

Which weight the gateways have in force, which version the servers answer with, what clients were answered, and what an
operator's own checks say. What Prometheus does not know did not happen: no data is never good news here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from model_registry.errors import FormatError, InvalidInputError
from model_registry.paths import check_model_name
from model_registry.rollout.envoy_counts import EnvoyCounts
from model_registry.rollout.prometheus import Prometheus
from model_registry.rollout.prometheus_answers import Sample
from model_registry.rollout.promql import duration, filled_in, selector
from model_registry.rollout.reached import GatewaySeen, Reached, ServerSeen, all_gateways, all_servers
from model_registry.rollout.samples import Interval, Requests, Series, loading_intervals
from model_registry.serving.gateway.envoy_metrics import model_label

__all__ = ["CheckResult", "Observer", "Reached", "Window"]

_GATEWAYS, _AGENTS = "slipway-gateway", "slipway-sync"
_OWN = frozenset({"__name__", "job", "model", "label", "version", "state"})
# A series counts as long as Prometheus has it, which forgets what it cannot scrape. A store that is written to by
# others may not: so the last sample is at most three of its own intervals old, as they were in five minutes, or 5 s.
_RECENT = "{0} and (time() - timestamp({0}) < 5 or (time() - timestamp({0})) * count_over_time({0}[5m]) < 900)"
# Whoever was seen within this while is expected to be seen now.
_LATELY = "10m"
# Prometheus scrapes each target within one interval of finding it, and knows what came of it within two. So a target
# with three scrapes tells that all that were found with it have had one.
_SCRAPES = 3


@dataclass(frozen=True)
class Window:
    """What a version was asked in a while.

    Attributes:
        requests: Counted over all gateways, without those of the time that was left out.
        covered: Seconds between the first and the last scrape of its clusters in that while; 0 where there were none.
        left_out: Seconds of those in which a server of the label was loading a model, which slows down all it serves.
    """

    requests: Requests
    covered: float
    left_out: float


@dataclass(frozen=True)
class CheckResult:
    """What a check of the operator's own says.

    Attributes:
        passed: Whether it has samples and none of them is 0 or NaN; None where it has no sample.
        words: Why, for a person; one line.
        value: The value that decided: the first that failed, else the smallest; None where it is no finite number.
    """

    passed: bool | None
    words: str
    value: float | None


class Observer:
    """Asks Prometheus about one model. Everything raises what `Prometheus` raises."""

    def __init__(self, prometheus: Prometheus, model: str, *, within: Mapping[str, str] | None = None) -> None:
        """Touches no network.

        Args:
            prometheus: Who is asked.
            model: Whose rollout it is.
            within: Labels that all series have that are meant, such as `{"namespace": "prod"}`, where Prometheus
                knows the gateways and servers of several registries.

        Raises:
            InvalidInputError: If the model or a label has no name that can be asked for.
        """
        self._prometheus = prometheus
        self._model = check_model_name(model)
        self._within = dict(within or {})
        if taken := _OWN & self._within.keys():
            raise InvalidInputError(f"series are found by the label {sorted(taken)[0]!r} anyway: expected another")
        selector("up", self._within)

    def now(self) -> float:
        """Unix seconds by Prometheus' clock."""
        return self._prometheus.time()

    def weights_in_force(self, weight: int, revision: int) -> Reached:
        """Whether every gateway shares requests as it should.

        Every one is meant that Prometheus scrapes as the job slipway-gateway, and every one, of whatever job, that told
        a weight of the model within the last ten minutes. One that cannot be seen may go on sending requests to canary,
        so it is waited for: where gateways end while a rollout goes on, for ten minutes at most.

        Args:
            weight: Percent to canary.
            revision: Of state.json that says so; a later one will do.
        """
        at = self.now()
        lately = self._lately("slipway_gateway_weight", at, model=self._model)
        up = self._up(_GATEWAYS, lately, at)
        weights = self._recent("slipway_gateway_weight", at, model=self._model)
        revisions = self._recent("slipway_gateway_revision", at, model=self._model)
        seen = {
            instance: GatewaySeen(up.get(instance), weights.get(instance), revisions.get(instance))
            for instance in {*up, *weights, *(instance for _, instance in lately)}
        }
        found = all_gateways(seen, weight=weight, revision=revision)
        return self._unless_begun_anew(found, _GATEWAYS, lately, at)

    def served(self, label: str, version: int, revision: int) -> Reached:
        """Whether every server that follows a label answers with a version under it.

        Those are meant whose agents Prometheus scrapes as the job slipway-sync, and those, of whatever job, that
        followed the label within the last ten minutes; see `weights_in_force`.

        Args:
            label: The label.
            version: What it names.
            revision: Of state.json that says so; a later one will do.
        """
        at = self.now()
        lately = self._lately("slipway_sync_wanted_version", at, model=self._model, label=label)
        up = self._up(_AGENTS, lately, at)
        read = self._recent("slipway_sync_registry_age_seconds", at)
        revisions = self._recent("slipway_sync_revision", at, model=self._model)
        wanted = self._recent("slipway_sync_wanted_version", at, model=self._model, label=label)
        serving = self._recent("slipway_sync_serving_version", at, model=self._model, label=label)
        gave_up = self._recent("slipway_sync_given_up_version", at, model=self._model, label=label)
        seen = {
            instance: ServerSeen(
                up=up.get(instance),
                read=instance in read,
                revision=revisions.get(instance),
                wanted=wanted.get(instance),
                serving=serving.get(instance),
                gave_up=gave_up.get(instance),
            )
            for instance in {*up, *wanted, *(instance for _, instance in lately)}
        }
        found = all_servers(seen, label=label, version=version, revision=revision)
        return self._unless_begun_anew(found, _AGENTS, lately, at)

    def window(self, label: str, version: int, start: float, end: float) -> Window:
        """What clients were answered by a version under a label.

        Args:
            label: The label.
            version: The version.
            start: Unix seconds by Prometheus' clock.
            end: Likewise.
        """
        of = {"model": model_label(self._model), "label": label, "version": str(version)}
        counts = EnvoyCounts.read(
            lambda metric, **labels: self._prometheus.series(self._selector(metric, **of, **labels), start, end)
        )
        scraped = counts.scraped()
        if scraped is None:
            return Window(Requests(), 0.0, 0.0)
        first, last = scraped
        left_out = loading_intervals(self._loading(label, start, end))
        return Window(counts.requests(left_out), last - first, _overlap(left_out, first, last))

    def check(self, promql: str, values: Mapping[str, str]) -> CheckResult:
        """What a check of the operator's own says now.

        Args:
            promql: An expression; `$model`, `$version`, `$baseline` and `$window` are filled in.
            values: What each of the four is, without the `$`; `window` is a duration such as `600s`.

        Raises:
            InvalidInputError: If it names another, or Prometheus refuses it.
        """
        return check_result(self._prometheus.query(filled_in(promql, values), foreign=True))

    def _selector(self, metric: str, instance: Collection[str] = (), **labels: str) -> str:
        one_of = {"instance": sorted(instance)} if instance else {}
        return selector(metric, {**self._within, **labels}, **one_of)

    def _lately(self, metric: str, at: float, **labels: str) -> frozenset[tuple[str, str]]:
        """Job and instance of all that told of something of late, whether they do so now or not."""
        found = self._prometheus.query(f"count_over_time({self._selector(metric, **labels)}[{_LATELY}])", at)
        return frozenset(map(_target, found))

    def _up(self, job: str, lately: Collection[tuple[str, str]], at: float) -> dict[str, bool]:
        """Whether Prometheus can scrape each instance of a job, and each that was seen of late as another."""
        found = _by_instance(self._prometheus.query(self._selector("up", job=job), at))
        if others := [target for target in lately if target[0] != job]:
            # A job of another name may be that of much else.
            jobs, instances = ({target[part] for target in others} for part in (0, 1))
            asked = selector("up", self._within, job=sorted(jobs), instance=sorted(instances))
            there = [sample for sample in self._prometheus.query(asked, at) if _target(sample) in others]
            found = {**_by_instance(there), **found}
        return {instance: value == 1 for instance, value in found.items()}

    def _unless_begun_anew(self, found: Reached, job: str, lately: Collection[tuple[str, str]], at: float) -> Reached:
        """The same, but not reached where Prometheus may know only some of them yet, as it does when it has begun."""
        if not found.reached:
            return found
        jobs, instances = {job, *(target[0] for target in lately)}, {target[1] for target in lately}
        asked = selector("up", self._within, job=sorted(jobs), instance=sorted(instances))
        scrapes = self._prometheus.query(f"max(count_over_time({asked}[{_LATELY}]))", at)
        if any(sample.value >= _SCRAPES for sample in scrapes):
            return found
        words = f"Prometheus has begun to scrape them only now: expected {_SCRAPES} scrapes within ten minutes"
        return Reached(False, False, words)

    def _recent(self, metric: str, at: float, **labels: str) -> dict[str, float]:
        """The value at each instance where it is known of late."""
        return _by_instance(self._prometheus.query(_RECENT.format(self._selector(metric, **labels)), at))

    def _loading(self, label: str, start: float, end: float) -> tuple[Series, ...]:
        """How many versions of each model were being loaded by each server that follows the label."""
        span = duration(end - start)
        wanted = self._selector("slipway_sync_wanted_version", model=self._model, label=label)
        servers = _instances(self._prometheus.query(f"count_over_time({wanted}[{span}])", end))
        loading = self._selector("slipway_sync_versions", state="LOADING")
        # Of all that a fleet serves, most was never being loaded in this while.
        found = self._prometheus.query(f"max_over_time({loading}[{span}]) > 0", end)
        instances = _instances(found) & servers
        if not instances:
            return ()
        return self._prometheus.series(self._selector("slipway_sync_versions", instances, state="LOADING"), start, end)


def check_result(samples: Sequence[Sample]) -> CheckResult:
    """What follows from the samples of a check."""
    if not samples:
        return CheckResult(
            None,
            "it has no sample: no such series, or a comparison without `bool`, which leaves out what does not hold",
            None,
        )
    amiss = [sample for sample in samples if sample.value == 0 or math.isnan(sample.value)]
    decided = amiss[0] if amiss else min(samples, key=lambda sample: sample.value)
    labels = ", ".join(f"{name}={text!r}" for name, text in sorted(decided.labels.items()))[:200]
    number = "NaN" if math.isnan(decided.value) else f"{decided.value:g}"
    words = f"it is {number}" + (f" of {{{labels}}}" if labels else "")
    if len(samples) > 1:
        words = f"{len(amiss) or 'none'} of {len(samples)} values {'are' if len(amiss) > 1 else 'is'} 0 or NaN: {words}"
    return CheckResult(not amiss, words, decided.value if math.isfinite(decided.value) else None)


def _target(sample: Sample) -> tuple[str, str]:
    return sample.labels.get("job", ""), sample.labels.get("instance", "")


def _instances(samples: Iterable[Sample]) -> frozenset[str]:
    return frozenset(sample.labels.get("instance", "") for sample in samples)


def _by_instance(samples: Iterable[Sample]) -> dict[str, float]:
    """Values by instance.

    Raises:
        FormatError: If an instance has several.
    """
    found: dict[str, float] = {}
    for sample in samples:
        instance = sample.labels.get("instance", "")
        if found.setdefault(instance, sample.value) != sample.value:
            raise FormatError(
                f"Prometheus has both {found[instance]:g} and {sample.value:g} of {sample.labels.get('__name__', '')} "
                f"at {instance!r}",
                hint="where it scrapes several gateways or fleets, tell apart the one that is meant by its labels",
            )
    return found


def _overlap(intervals: Iterable[Interval], first: float, last: float) -> float:
    return sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in intervals)
