"""The sync agent: it keeps one server's directory as the registry wants it, a look at a time.

Each look begins from what is there: the registry's labels, the disk, models.config and the server's own word. So it
does not matter when an agent was ended, or what happened while there was none. What to do about a model is decided by
`reconciling` alone; here it is carried out, in an order in which every interruption is harmless: what is remembered
first, then models.config, then the removal of what nothing names any more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from model_registry.catalog import Catalog
from model_registry.errors import SlipwayError, StorageError
from model_registry.servable import Variant
from model_registry.serving.agent_loop import AgentLoop
from model_registry.serving.owned_directory import is_full
from model_registry.serving.registry_watch import RegistryWatch
from model_registry.serving.server_status import ServerStatus
from model_registry.serving.sync.agent_memory import AgentMemory
from model_registry.serving.sync.followed_model import FollowedModel
from model_registry.serving.sync.published_report import PublishedReport
from model_registry.serving.sync.registry_view import Look, RegistryView
from model_registry.serving.sync.server_watch import ServerWatch
from model_registry.serving.sync.serving_directory import CONFIG, ServingDirectory
from model_registry.serving.sync.settling import is_moving
from model_registry.serving.sync.start_up import StartUp
from model_registry.serving.sync.supply import Supply
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.sync.sync_report import AgentReport, ModelReport
from model_registry.serving.sync.sync_settings import SyncSettings
from model_registry.serving.sync.sync_state import Decision, Loading
from model_registry.serving.sync.written_state import WrittenState

_PACE = 1.0  # seconds between two looks at the server while something is under way

log = logging.getLogger("slipway")


class SyncAgent:
    """An agent beside one server. `report`, `healthy`, `ready` and `retry` are for any thread, all else for one."""

    def __init__(
        self,
        settings: SyncSettings,
        registry: Catalog,
        *,
        metrics: SyncMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the directory, clears what another left half-done there, and reads what it remembered.

        Args:
            settings: What to follow and where.
            registry: What is followed.
            metrics: Are told what happens.
            clock: Tells seconds that never go back.

        Raises:
            ConflictError: If another agent fills the directory.
            FormatError: If models.config or the memory there was written by somebody else.
            InvalidInputError: If the server's URL is none.
            StorageError: If the directory cannot be used.
        """
        self._settings, self._registry, self._metrics, self._clock = settings, registry, metrics, clock
        self._loop = AgentLoop(interval=settings.interval, clock=clock)
        self._lock = threading.Lock()
        self._retries: list[tuple[str, int]] = []
        self._server = ServerWatch(ServerStatus(settings.server), metrics, silence=settings.silence, clock=clock)
        self._view = RegistryView(registry, models=settings.models, labels=settings.labels, variants=settings.variants)
        self._directory = ServingDirectory(settings.destination)
        try:
            self._directory.clear()
            self._written = WrittenState(self._directory)
            self._models = self._written.models(settings)
        except BaseException:
            self._directory.close()
            raise
        self._supply = Supply(self._directory, registry, metrics, reserve=settings.reserve, done=self._loop.wake)
        self._watch = RegistryWatch(self._view, metrics, interval=settings.interval, done=self._loop.wake, clock=clock)
        self._published = PublishedReport(self._told(), metrics, first=self._written.memory.first)

    def run(self, stop: threading.Event) -> None:
        """Looks again and again until it is told to stop."""
        self._loop.run(stop, self.tick, self._pause)

    def wait(self, stop: threading.Event) -> None:
        """Waits until the next look is due, or something happened, or it is to stop."""
        self._loop.wait(stop, self._pause())

    def tick(self) -> None:
        """One look at everything, and what follows from it.

        Where the directory cannot be looked at or written, the report says so; what was not written is decided anew
        at the next look.
        """
        self._supply.collect()
        self._take_retries()
        if look := self._watch.poll(self._known()):
            self._take(look)
        reachable, problem = self._decide_and_write()
        self._sweep()
        self._bring()
        for name in [name for name, model in self._models.items() if model.is_over]:
            del self._models[name]
        if problem:
            self._metrics.failed("", "disk")
        report = replace(
            self._told(),
            server_reachable=reachable,
            registry_age=self._watch.age,
            registry_problem=self._watch.problem,
            disk_problem=problem,
            models={name: self._report_of(model) for name, model in self._models.items()},
        )
        self._published.publish(report, {name: model.counted_on for name, model in self._models.items()})
        self._loop.looked()

    def prepare(self) -> AgentReport:
        """Writes a models.config that a server may start with, while there is none that answers.

        Raises:
            StorageError: If nothing at all can be served; what is there is left as it is, unless nothing is wanted.
        """
        look = self._view.look(self._known())
        if look.problem:
            log.warning("the registry is out of reach: %s", look.problem)
        self._take(look)
        start_up = StartUp(self._settings, self._directory, self._view, self._supply)
        config = start_up.config(self._written.memory, look)
        memory = AgentMemory(start_up.remembered)
        if not config:
            if any(model.config for model in self._models.values()) and all(
                model.wanted == {} for model in look.models.values()
            ):
                self._written.write(memory, ())  # what is there is not wanted any more
            reasons = [*start_up.problems.values(), look.problem, *(model.problem for model in self._models.values())]
            raise StorageError(
                "nothing can be served: " + ("; ".join(filter(None, reasons)) or "no label names a version"),
                hint=f"see what the labels name in {self._registry.store.uri}, and --model, --label and --variant",
            )
        self._written.write(memory, config.values())
        here = self._directory.here()
        for name, model in self._models.items():
            model.config, model.here = config.get(name), here.get(name, {})
        log.info("%s written: a server may start with it", self._directory.root / CONFIG)
        return replace(
            self._told(),
            registry_problem=look.problem,
            models={
                name: replace(model.report({}, {}), versions=start_up.versions(name, config.get(name)))
                for name, model in self._models.items()
            },
        )

    def server_answers(self) -> bool:
        """Whether there is a server by now."""
        return self._server.ask((), {}).reachable

    def report(self) -> AgentReport:
        """How things stand, as they were seen last."""
        return replace(self._published.report, registry_age=self._watch.age, registry_problem=self._watch.problem)

    def healthy(self) -> bool:
        """Whether it goes on looking."""
        return self._loop.healthy()

    def ready(self) -> bool:
        """Whether the server is fit for requests: it answers under the labels that it answered under before."""
        return bool(self._published.report.ready)

    def retry(self, model: str, version: int) -> None:
        """Lets a version that failed be tried again.

        Raises:
            NotFoundError: If it is not among those that are here or wanted.
            ConflictError: If it did not fail.
        """
        self.report().require_failed(model, version)
        with self._lock:
            self._retries.append((model, version))
        self._loop.wake()

    def close(self, timeout: float = 60.0) -> bool:
        """Ends what is under way, and lets another agent have the directory.

        Args:
            timeout: Seconds to wait for downloads.

        Returns:
            Whether all has ended. If not, the directory stays locked for as long as this process lives.
        """
        ended = self._watch.close() & self._supply.close(timeout)
        if ended:
            self._directory.close()
        return ended

    def _known(self) -> dict[str, int]:
        """The models that are here, with the highest revision that was seen of each."""
        return {name: model.remembered.revision for name, model in self._models.items()}

    def _take_retries(self) -> None:
        with self._lock:
            retries, self._retries = self._retries, []
        for name, version in retries:
            if model := self._models.get(name):
                model.retry(version)
                self._supply.downloads.again((name, version))
                log.info("%s:%s is tried again, as was asked", name, version)

    def _take(self, look: Look) -> None:
        for name, found in look.models.items():
            model = self._models.setdefault(name, FollowedModel(name))
            model.take(found, out_of_reach=bool(look.problem))

    def _decide_and_write(self) -> tuple[bool, str]:
        """Decides, and writes it down; returns whether the server answers, and why the disk did not let us."""
        try:
            here = self._directory.here()
        except SlipwayError as error:
            return self.server_answers(), str(error)
        reachable, decisions = self._decide(here)
        try:
            self._write(decisions)
        except SlipwayError as error:
            return reachable, str(error)
        for name, decision in decisions.items():
            self._models[name].adopt(decision)
        return reachable, ""

    def _write(self, decisions: Mapping[str, Decision]) -> None:
        """Writes it down; where the disk is full, what was kept for comfort goes first."""
        memory = AgentMemory({name: decision.remembered for name, decision in decisions.items()})
        config = [decision.config for decision in decisions.values() if decision.config]
        while True:
            try:
                return self._written.write(memory, config)
            except StorageError as error:
                self._sweep()  # which of the old versions nobody needs by now
                if not (is_full(error) and self._supply.make_room()):
                    raise

    def _decide(self, here: Mapping[str, Mapping[int, Variant]]) -> tuple[bool, dict[str, Decision]]:
        """Looks at the server; returns whether that answers, and a decision for each model.

        Args:
            here: What lies on the disk. Of what could not be looked at, that stands which did before.
        """
        for name in here.keys() - self._models.keys():
            self._models[name] = FollowedModel(name)
        server = self._server.ask(
            {name for name, model in self._models.items() if model.config or name in here},
            {name: model.asks for name, model in self._models.items()},
        )
        loading = {name: model.decision.loading for name, model in self._models.items() if model.decision}
        decisions = {}
        for name, model in self._models.items():
            if name not in self._directory.problems:
                model.here = here.get(name, {})
            model.server = server.versions.get(name, ()) if server.reachable else None
            elsewhere = max((found for other, found in loading.items() if other != name), default=Loading.NOTHING)
            answered = server.answered.get(name, {})
            decisions[name] = model.decide(
                answered,
                elsewhere,
                self._clock(),
                self._settings,
                gone=server.gone,
                first=self._written.memory.first,
            )
            loading[name] = decisions[name].loading
        return server.reachable, decisions

    def _sweep(self) -> None:
        """Removes what neither models.config as it lies there, nor the server, nor the registry needs."""
        running = self._supply.downloads.running
        for name, model in self._models.items():
            unneeded = {version for version in model.unneeded() if (name, version) not in running}
            self._supply.sweep(name, unneeded, keep=self._settings.keep if model.look.wanted else 0)

    def _bring(self) -> None:
        """Begins to bring what is wanted."""
        missing = {(name, version) for name, model in self._models.items() for version in model.to_bring()}
        self._supply.downloads.forget(missing)
        for name, version in sorted(missing):
            model = self._models[name]
            self._supply.begin(name, version, model.to_bring()[version], in_use=model.in_use(version))

    def _report_of(self, model: FollowedModel) -> ModelReport:
        running, failures = self._supply.downloads.running, self._supply.downloads.failures
        return model.report(
            {version: variant.name for (name, version), variant in running.items() if name == model.name},
            {version: why for (name, version), why in failures.items() if name == model.name},
            disk_problem=self._directory.problems.get(model.name) or self._supply.problem(model.name),
        )

    def _told(self) -> AgentReport:
        """What never changes of the report."""
        return AgentReport(
            agent=self._settings.name,
            registry=self._registry.store.uri,
            destination=str(self._directory.root),
            server=self._settings.server,
            follows_models=self._settings.models,
            follows_labels=self._settings.labels,
        )

    def _pause(self) -> float:
        """Seconds until the next look: soon, where something is under way."""
        quiet = not is_moving(self._published.report)
        return min(self._watch.pause if quiet else _PACE, self._settings.interval)
