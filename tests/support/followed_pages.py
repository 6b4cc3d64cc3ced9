"""What a fleet shows Prometheus as it follows a registry, without the fleet: a gateway, its Envoy, two agents."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from model_registry.registry import Registry
from tests.support.metrics_page import MetricsPages

_TICK = 0.1  # seconds


@dataclass(frozen=True)
class Answers:
    """How a version answers.

    Attributes:
        errors: Share of its answers that fail.
        milliseconds: How long they take, in turn.
        loads: Whether servers can load it.
    """

    errors: float = 0.001
    milliseconds: Sequence[float] = (8, 12, 15, 30)
    loads: bool = True


class FollowedPages:
    """The pages of one model, which a thread keeps as the registry says. As a context it follows.

    Attributes:
        versions: How each answers; those that are not told answer well.
        gateway_held: Whether the gateway takes up nothing new.
        servers_held: Likewise the servers.
        envoy: Whose page may be taken down.
    """

    def __init__(self, pages: MetricsPages, registry: Registry, model: str, *, rate: int = 5000) -> None:
        self.versions: dict[int, Answers] = {}
        self.gateway_held = self.servers_held = False
        self.envoy = pages.envoy(f"{model}-envoy")
        self.gateway = pages.gateway(f"{model}-gateway")
        self._agents = {label: pages.agent(f"{model}-{label}") for label in ("stable", "canary")}
        self._pages = pages
        self._registry, self._model, self._rate = registry, model, rate
        self._weight = 0
        self._clusters: dict[str, int] = {}
        self._owed: Counter[str] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow-{model}")

    def __enter__(self) -> FollowedPages:
        self._follow()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for page in (self.envoy, self.gateway, *self._agents.values()):
            self._pages.forget(page)

    def _run(self) -> None:
        while not self._over.wait(_TICK):
            self._follow()
            self._ask()

    def _follow(self) -> None:
        state = self._registry.state(self._model)
        if not self.gateway_held:
            self._weight = state.traffic.weight if state.traffic else 0
            self._clusters = {label: number for label, number in state.labels.items() if label in self._agents}
            for label, version in self._clusters.items():
                self.envoy.cluster(self._model, label, version)
            self.gateway.in_force(self._model, weight=self._weight, revision=state.revision)
        if not self.servers_held:
            for label, agent in self._agents.items():
                wanted = {label: state.labels[label]} if label in state.labels else {}
                served = {name: number for name, number in wanted.items() if self._of(number).loads}
                gave_up = {*wanted.values()} - {*served.values()}
                agent.follows(self._model, wanted, serving=served, gave_up=gave_up, revision=state.revision)
                agent.has(self._model, AVAILABLE=len(served), FAILED=len(gave_up))

    def _ask(self) -> None:
        for label, version in self._clusters.items():
            share = self._weight if label == "canary" else 100 - self._weight
            requests = round(self._rate * _TICK * share / 100)
            answers = self._of(version)
            self._owed[label] += requests * answers.errors  # type: ignore[assignment]
            errors = min(requests, int(self._owed[label]))
            self._owed[label] -= errors
            if requests:
                self.envoy.answered(
                    self._model, label, version, requests=requests, errors=errors, milliseconds=answers.milliseconds
                )

    def _of(self, version: int) -> Answers:
        return self.versions.get(version, Answers())
