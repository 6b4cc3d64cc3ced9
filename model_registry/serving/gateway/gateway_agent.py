"""The agent beside one Envoy: what the registry says of traffic becomes routes, and what is in force is told.

Every look begins from what is there: the registry's states, the files, and Envoy's own word. So it does not matter
when an agent was ended, or what happened while there was none. Files are written in an order in which every
interruption is harmless (`turnover`): clusters first; then what is remembered; then the routes; and what nothing leads
to any more leaves the clusters last.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from model_registry.catalog import Catalog
from model_registry.errors import SlipwayError, StorageError
from model_registry.serving.agent_loop import AgentLoop
from model_registry.serving.gateway.envoy_admin import EnvoyLook
from model_registry.serving.gateway.envoy_resources import CLUSTERS_FILE, ROUTES_FILE, clusters_file, routes_file
from model_registry.serving.gateway.envoy_watch import EnvoyWatch
from model_registry.serving.gateway.gateway_directory import GatewayDirectory
from model_registry.serving.gateway.gateway_events import events
from model_registry.serving.gateway.gateway_metrics import GatewayMetrics
from model_registry.serving.gateway.gateway_report import GatewayReport, RoutedReport
from model_registry.serving.gateway.gateway_settings import GatewaySettings
from model_registry.serving.gateway.registry_states import RegistryStates
from model_registry.serving.gateway.routing import RoutingTable, routing_table
from model_registry.serving.gateway.standing import Readiness, held_up, standing
from model_registry.serving.gateway.turnover import Turnover
from model_registry.serving.gateway.wanted import Wanted
from model_registry.serving.registry_watch import RegistryWatch

_PACE, _BRISK = 1.0, 0.2  # seconds between two looks at Envoy; while it is to take something up
_PATIENCE = 30.0  # seconds that `settle` gives Envoy, the registry and the disk

_Known = TypeVar("_Known")

log = logging.getLogger("slipway")


class GatewayAgent:
    """An agent beside one Envoy. `report`, `healthy` and `ready` are for any thread, all else for one."""

    def __init__(
        self,
        settings: GatewaySettings,
        registry: Catalog,
        *,
        metrics: GatewayMetrics,
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
            FormatError: If the memory there was written by somebody else; or, where there is none, the routes.
            InvalidInputError: If Envoy's URL is none.
            StorageError: If the directory cannot be used.
        """
        self._settings, self._fleet, self._registry, self._metrics = settings, settings.fleet, registry, metrics
        self._clock = clock
        self._loop = AgentLoop(interval=settings.interval, clock=clock)
        self._lock = threading.Lock()
        self._envoy = EnvoyWatch(settings.admin, drain=settings.drain, clock=clock)
        self._states = RegistryStates(registry, self._fleet)
        self._directory = GatewayDirectory(settings.directory)
        try:
            memory = self._directory.memory()
            # Whoever removed the memory alone left routes, and no more of their states than the revisions.
            routed = None if memory else self._directory.routed()
        except BaseException:
            self._directory.close()
            raise
        self._remembered = memory
        self._turnover = memory or Turnover()
        self._wanted = Wanted(
            self._served(memory.states if memory else None),
            self._served(routed),
            uri=registry.store.uri,
            directory=self._directory.root,
        )
        before = None if memory is None else [route.model for route in memory.table.models]
        self._readiness = Readiness(before)
        self._watch = RegistryWatch(
            self._states, metrics, interval=settings.interval, done=self._loop.wake, clock=clock
        )
        self._report = self._told()

    def run(self, stop: threading.Event) -> None:
        """Looks again and again until it is told to stop."""
        self._loop.run(stop, self.tick, self._pause)

    def tick(self) -> None:
        """One look at everything, and what follows from it.

        Where the directory cannot be written, the report says so; what was not written is decided anew at the next
        look.
        """
        if look := self._watch.poll(self._wanted.known):
            self._wanted.take(look)
        table = routing_table(self._wanted.states, self._fleet)
        problem = self._wanted.blindness or self._written(lambda: self._write_clusters(table))
        # Envoy cannot have what was not written: its time to take that up begins once it was.
        envoy = self._look_at_envoy(RoutingTable() if problem else self._coming(table))
        problem = problem or self._written(lambda: self._go_over(table, envoy))
        self._publish(table, envoy, problem)
        self._loop.looked()

    def prepare(self) -> GatewayReport:
        """Writes the files that an Envoy may start with, while there is none that answers.

        Raises:
            StorageError: If the registry cannot be read, and nothing was routed before; or the disk fails.
        """
        look = self._states.look(self._wanted.known)
        self._wanted.take(look)
        if look.problem:
            log.warning("the registry is out of reach: %s", look.problem)
        if not self._wanted.may_write:
            raise StorageError(
                f"nothing can be routed: {look.problem}", hint="an Envoy that starts without its files ends at once"
            )
        if problem := self._wanted.blindness:
            raise StorageError(problem, hint="see why a state cannot be read: slipway verify --all")
        table = routing_table(self._wanted.states, self._fleet)
        self._write_clusters(table)
        self._go_over(table, EnvoyLook(refused=True))
        if table.models:
            log.info("%s written: an Envoy may start with it", self._directory.root)
        else:
            label, uri = self._fleet.gateway.stable, self._registry.store.uri
            log.warning("%s written, without a route: no model in %s has label %r", self._directory.root, uri, label)
        return replace(
            self._told(),
            registry_age=None if look.problem else 0.0,
            registry_problem=look.problem,
            models=self._standing(table, EnvoyLook()),
        )

    def settle(self, stop: threading.Event) -> GatewayReport:
        """Looks until Envoy shares requests as is wanted, or has not for long, or it is to stop."""
        until = self._clock() + _PATIENCE
        while True:
            self.tick()
            if self.report().well or stop.is_set() or self._clock() > until:
                return self.report()
            self._loop.wait(stop, self._pause())

    def envoy_answers(self) -> bool:
        """Whether there is an Envoy by now."""
        return self._envoy.answers()

    def report(self) -> GatewayReport:
        """How things stand, as they were seen last."""
        with self._lock:
            report = self._report
        return replace(report, registry_age=self._watch.age, registry_problem=self._watch.problem)

    def healthy(self) -> bool:
        """Whether it goes on looking."""
        return self._loop.healthy()

    def ready(self) -> bool:
        """Whether Envoy is fit for requests: it takes them, and routes every model that it routed before.

        While Envoy is silent that is as it was, until it counts as gone.
        """
        with self._lock:
            return bool(self._report.ready)

    def close(self, timeout: float = 0.0) -> bool:
        """Ends what is under way, and lets another agent have the directory.

        Args:
            timeout: Nothing that ends by itself is waited for.

        Returns:
            Whether all has ended. If not, the directory stays locked for as long as this process lives.
        """
        del timeout
        ended = self._watch.close()
        if ended:
            self._directory.close()
        return ended

    def _served(self, models: Mapping[str, _Known] | None) -> dict[str, _Known] | None:
        """Those that there are servers for: what else was routed before, nobody wants any more."""
        return None if models is None else {name: known for name, known in models.items() if self._states.serves(name)}

    def _written(self, write: Callable[[], None]) -> str:
        """Writes something; tells why it could not be, and an empty string if it could."""
        try:
            write()
        except SlipwayError as error:
            self._metrics.failed("", "disk")
            return str(error)
        return ""

    def _write_clusters(self, table: RoutingTable) -> None:
        """Those that routes lead to, or did, or are to."""
        if self._wanted.may_write:
            data = clusters_file(table, file=self._fleet, keep=self._turnover.kept)
            self._directory.write({CLUSTERS_FILE: data})

    def _coming(self, table: RoutingTable) -> RoutingTable:
        """What is to be routed, and is not yet."""
        behind = self._turnover.behind(table, self._wanted.states)
        return RoutingTable(tuple(route for route in table.models if route.model in behind))

    def _look_at_envoy(self, coming: RoutingTable) -> EnvoyLook:
        look = self._envoy.look(coming, self._turnover.first(coming))
        if not look.reachable:
            self._metrics.failed("", "envoy")
        return look

    def _go_over(self, table: RoutingTable, envoy: EnvoyLook) -> None:
        """Lets routes follow what is wanted where Envoy has the clusters, or there is no Envoy; ends what has drained.

        A canary gets no first requests while Envoy knows none of its servers, or nobody knows whether it does. What is
        remembered is written before the routes.
        """
        if not self._wanted.may_write:
            return
        drained = self._envoy.drained(self._turnover.models, envoy)
        first = self._turnover.first(table)
        table = table.without_canary(envoy.lack("servers") if envoy.reachable else [one.model for one in first.models])
        over = self._turnover.behind(table, self._wanted.states) - envoy.lack("clusters")
        if self._envoy.may_be_running(envoy):
            over = frozenset()  # nobody knows which clusters it has
        turnover = self._turnover.over(table, self._wanted.states, over).drained(drained - over)
        if turnover != self._remembered:
            self._directory.remember(turnover)
        self._turnover = self._remembered = turnover
        for name in over:
            self._envoy.rerouted(name)
        self._directory.write({ROUTES_FILE: routes_file(turnover.table, file=self._fleet)})
        self._write_clusters(table)

    def _publish(self, table: RoutingTable, envoy: EnvoyLook, disk_problem: str) -> None:
        before = self._report
        report = replace(
            self._told(),
            envoy_reachable=envoy.reachable,
            # All replicas are under load at once: were the slow ones unready, none would be left.
            ready=before.ready if self._envoy.may_be_running(envoy) else self._readiness.see(table, envoy),
            envoy_problem=envoy.problem,
            registry_age=self._watch.age,
            registry_problem=self._watch.problem,
            disk_problem=disk_problem,
            models=self._standing(table, envoy),
        )
        for level, line in events(before, report):
            log.log(level, "%s", line)
        with self._lock:
            self._report = report
        self._metrics.observe(report)

    def _standing(self, table: RoutingTable, envoy: EnvoyLook) -> dict[str, RoutedReport]:
        states = self._wanted.states
        waiting = held_up(self._envoy.slow(), states, table, root=self._directory.root)
        return standing(states, table, envoy, unread=self._wanted.unread, waiting=waiting)

    def _told(self) -> GatewayReport:
        """What never changes of the report."""
        return GatewayReport(
            agent=self._settings.name,
            registry=self._registry.store.uri,
            directory=str(self._directory.root),
            envoy=self._envoy.url,
        )

    def _pause(self) -> float:
        """Seconds until the next look: soon, where Envoy is to take something up."""
        report = self._report
        behind = report.envoy_reachable and not report.disk_problem and not report.settled
        return min(self._watch.pause, _BRISK if behind and not self._is_stuck(report) else _PACE)

    def _is_stuck(self, report: GatewayReport) -> bool:
        """Whether nothing can be expected to move by itself."""
        return all(model.settled or model.problem for model in report.models.values())
