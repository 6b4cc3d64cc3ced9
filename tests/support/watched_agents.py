"""Sync agents as others see them: one that says what a test told it, and one that follows a registry step by step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from model_registry.registry import Registry
from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport, VersionState
from model_registry.storage import open_store

REPORT = AgentReport(
    agent="agent-1",
    registry="s3://models/registry",
    destination="/srv/models",
    server="http://127.0.0.1:8501",
    server_reachable=True,
    registry_age=2.5,
    models={
        "digits": ModelReport(
            revision=7,
            wanted={"stable": 3, "canary": 4},
            serving={"stable": 3, "canary": 3},
            versions=(
                VersionReport(3, "AVAILABLE", "native"),
                VersionReport(4, "FAILED", "native", why="Op type not registered", gave_up=True),
            ),
        ),
        "faces": ModelReport(revision=2, wanted={"stable": 1}, serving={"stable": 1}),
    },
)


@dataclass
class StillAgent:
    """Says always the same, and notes what it is asked to try again."""

    says: AgentReport = REPORT
    is_healthy: bool = True
    is_ready: bool = True
    retried: list[tuple[str, int]] = field(default_factory=list)

    def report(self) -> AgentReport:
        return self.says

    def healthy(self) -> bool:
        return self.is_healthy

    def ready(self) -> bool:
        return self.is_ready

    def retry(self, model: str, version: int) -> None:
        self.says.require_failed(model, version)
        self.retried.append((model, version))


class FollowingAgent(StillAgent):
    """Follows the labels of `digits` in a registry; each look at it is a step on its server's way.

    A version in `fails` cannot be loaded, until a retry `mends` it.
    """

    def __init__(self, registry: str, *, name: str = "agent-1", steps: Sequence[VersionState] = ("LOADING",)) -> None:
        super().__init__(AgentReport(name, registry, "/srv/models", "http://127.0.0.1:8501", server_reachable=True))
        self.labels = Registry(open_store(registry))
        self.steps = tuple(steps)
        self.fails: dict[int, str] = {}
        self.mends = True
        self.unnoticed = 0
        self.serving: dict[str, int] = {}
        self.way: list[VersionState] = []
        self.gave_up: set[int] = set()
        self.lock = threading.Lock()

    def settle(self) -> None:
        """Its server answers as the registry wants it."""
        self.serving = dict(self.labels.state("digits").labels)

    def retry(self, model: str, version: int) -> None:
        with self.lock:
            self.retried.append((model, version))
            self.unnoticed = 3  # looks that still show the failure: an agent's report is as old as its last tick

    def report(self) -> AgentReport:
        with self.lock:
            self._notice_a_retry()
            state = self.labels.state("digits")
            behind = {version for label, version in state.labels.items() if self.serving.get(label) != version}
            reports = []
            for version in behind:
                taken: VersionState = "FAILED" if version in self.gave_up else self._next()
                if taken == "AVAILABLE" and version in self.fails:
                    self.gave_up.add(version)
                    taken = "FAILED"
                if taken == "AVAILABLE":
                    self.serving = dict(state.labels)
                why = self.fails.get(version, "") if taken == "FAILED" else ""
                reports.append(VersionReport(version, taken, "native", why=why, gave_up=taken == "FAILED"))
            model = ModelReport(state.revision, dict(state.labels), dict(self.serving), tuple(reports))
            return replace(self.says, models={"digits": model})

    def _notice_a_retry(self) -> None:
        if self.unnoticed:
            self.unnoticed -= 1
            if not self.unnoticed:
                self.gave_up.clear()
                if self.mends:
                    self.fails.clear()

    def _next(self) -> VersionState:
        self.way = self.way or [*self.steps, "AVAILABLE"]
        return self.way.pop(0)
