"""A fleet without servers, in its own time: gateways and agents that follow the registry, and clients that ask.

It answers what a rollout asks of Prometheus from what it did itself, so that hours pass in milliseconds:

    fleet = SimulatedFleet(registry)
    fleet.versions[2] = Version(errors=0.05)
    fleet.after(30, lambda: ...)                         # somebody does something meanwhile
    Driver(registry, fleet, "digits", origin=..., clock=fleet.clock, sleep=fleet.sleep)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from model_registry.errors import StorageError
from model_registry.registry import Registry
from model_registry.rollout.histograms import Histogram
from model_registry.rollout.observation import CheckResult, Reached, Window
from model_registry.rollout.samples import Requests

MODEL = "digits"
_BOUNDS = (5.0, 6, 7, 8, 10, 12, 14, 17, 20, 24, 29, 35, 42, 50, 60, 72, 86, 100, 200, 500, 1000, math.inf)
_BEGIN = 1_800_000_000.0  # Unix seconds


@dataclass(frozen=True)
class Version:
    """How a version answers.

    Attributes:
        errors: Share of its answers.
        times: So many times as long it takes.
        loads: Whether servers can load it.
    """

    errors: float = 0.001
    times: float = 1.0
    loads: bool = True


class SimulatedFleet:
    """One gateway, and servers for each label, of the model `digits`.

    Attributes:
        versions: How each answers; those that are not told answer well.
        rate: Requests a second.
        lag: Seconds that gateways and servers take to follow the registry.
        gateway_stuck: Whether the gateway stays at its weight.
        servers_stuck: Whether servers stay at their versions.
        away: Whether Prometheus does not answer.
        scraped_until: What was scraped last, if nothing is any more.
        loading: From when to when a server was loading a model.
        check: What an operator's check answers.
        asked: Every check that was made, as it was filled in.
    """

    def __init__(self, registry: Registry, *, rate: float = 200.0, lag: float = 3.0) -> None:
        self.registry = registry
        self.versions: dict[int, Version] = {}
        self.rate = rate
        self.lag = lag
        self.gateway_stuck = self.servers_stuck = self.away = False
        self.scraped_until: float | None = None
        self.loading: tuple[float, float] | None = None
        self.check_result = CheckResult(True, "1", 1.0)
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.time = _BEGIN
        self._weights: list[tuple[float, int]] = [(_BEGIN, 0)]
        self._in_force = (0, 0)
        self._served: dict[str, int] = {}
        self._served_revision = 0
        self._planned: list[tuple[float, Callable[[], None]]] = []
        self._seen: list[tuple[float, int, int, dict[str, int]]] = []

    # Its time

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        end = self.time + seconds
        while self._planned and min(self._planned)[0] <= end:
            due = min(self._planned, key=lambda plan: plan[0])
            self._planned.remove(due)
            self.time = max(self.time, due[0])
            due[1]()
        self.time = end
        self._follow()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Does something in so many seconds."""
        self._planned.append((self.time + seconds + len(self._planned) * 1e-6, action))

    def _follow(self) -> None:
        try:
            state = self.registry.state(MODEL)
        except StorageError:
            return
        weight = state.traffic.weight if state.traffic else 0
        self._seen.append((self.time, state.revision, weight, dict(state.labels)))
        for at, revision, its_weight, labels in self._seen:
            if at > self.time - self.lag:
                continue
            if not self.gateway_stuck and revision > self._in_force[1]:
                self._in_force = its_weight, revision
                self._weights.append((self.time, its_weight))
            if not self.servers_stuck and revision > self._served_revision:
                loaded = {label: v for label, v in labels.items() if self._version(v).loads}
                self._served = {**{label: v for label, v in self._served.items() if label in labels}, **loaded}
                self._served_revision = revision
        self._seen = [seen for seen in self._seen if seen[0] > self.time - self.lag]

    def _version(self, number: int) -> Version:
        return self.versions.get(number, Version())

    # What Prometheus knows

    def now(self) -> float:
        if self.away:
            raise StorageError("Prometheus does not answer", transient=True)
        return self.time

    def weights_in_force(self, weight: int, revision: int) -> Reached:
        self.now()
        found, at = self._in_force
        return Reached(found == weight and at >= revision, False, f"gateway-1 has {found} % at revision {at}")

    def served(self, label: str, version: int, revision: int) -> Reached:
        self.now()
        reached = self._served.get(label) == version and self._served_revision >= revision
        gave_up = self._served_revision >= revision and not self._version(version).loads
        words = "server-1 gave it up: broken" if gave_up else f"server-1 has {self._served.get(label)}"
        return Reached(reached, gave_up, words)

    def window(self, label: str, version: int, start: float, end: float) -> Window:
        self.now()
        end = min(end, self.time if self.scraped_until is None else self.scraped_until)
        total = 0.0
        for (since, weight), (until, _) in zip(self._weights, [*self._weights[1:], (math.inf, 0)], strict=True):
            share = weight if label == "canary" else 100 - weight
            total += self.rate * share / 100 * max(0.0, min(end, until) - max(start, since))
        left_out = 0.0
        if self.loading:
            left_out = max(0.0, min(end, self.loading[1]) - max(start, self.loading[0]))
            total *= 1 - left_out / max(end - start, 1e-9)
        return Window(self._requests(version, round(total)), max(0.0, end - start), left_out)

    def check(self, promql: str, values: Mapping[str, str]) -> CheckResult:
        self.now()
        self.asked.append((promql, values))
        return self.check_result

    def _requests(self, number: int, total: int) -> Requests:
        """Half of them take 10 ms or less, as an exponential distribution from 5 ms on spreads them."""
        version = self._version(number)
        below = [1 - math.exp(-max(0.0, bound / version.times - 5) / 7.2) for bound in _BOUNDS]
        cumulative = [round(total * share) for share in below]
        counts = tuple(after - before for before, after in zip([0, *cumulative], cumulative, strict=False))
        return Requests(total, round(total * version.errors), Histogram(_BOUNDS, counts))
