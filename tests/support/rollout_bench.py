"""All that takes part in a rollout, each a process as people run it.

A registry in a directory; a stable and a canary fleet of a server each, with its agent; an Envoy with its agent before
them, started with what `slipway render envoy` prints; a Prometheus that asks them all, with what `slipway render
prometheus` prints; clients that ask without pause; and `slipway rollout`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_registry.registry import Registry
from model_registry.serving.gateway import envoy_metrics
from model_registry.state import Record, State
from model_registry.traffic import Traffic
from tests.support.command import SLIPWAY, Outcome, scratch_of, slipway
from tests.support.gateway_bench import GatewayBench, GatewayProcess
from tests.support.model_server_processes import RunningServer
from tests.support.prometheus_server import PrometheusServer
from tests.support.rollout_load import Load, asking
from tests.support.sync_bench import ORIGIN, Agent

MODEL = "digits"
WITHIN = 120.0
# What lasts for minutes is looked at twice a second; a look takes both ends some milliseconds.
UNHASTY = "--interval=0.5"
# Latency is not what is tested where two cores are shared by all of this: its margins let nearly everything pass.
UNHURRIED = ("--margin", "p50=20", "--margin", "p99=100")
# Requests a second: as many as are judged in a bake of some seconds, and fewer while none are judged. Two cores have
# more to do than to answer as many as they can.
BUSY, QUIET = 250.0, 50.0
# A bound of the 99th percentile takes 675 requests in the first bake of a step, and 784 in the second.
_ENOUGH = 1000


@dataclass
class Leader:
    """A `slipway rollout` that runs.

    Attributes:
        process: It.
        stdout: Where it prints.
        stderr: Where it says how it goes.
    """

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @property
    def said(self) -> str:
        """All that it said so far."""
        return self.stdout.read_text() + self.stderr.read_text()

    def end(self, seconds: float = WITHIN) -> Outcome:
        """What became of it, once it ended by itself."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"expected that the rollout ends within {seconds:.0f} s\n{self.said}") from None
        return Outcome(code, self.stdout.read_text(), self.stderr.read_text())

    def kill(self) -> None:
        """Ends it as a power cut does."""
        self.process.kill()
        self.process.wait(WITHIN)


@dataclass
class RolloutBench:
    """Where a rollout happens.

    Attributes:
        gateway: The registry, the Envoy and what runs its agents.
        servers: By label.
        agents: By label, those beside the servers.
        prometheus: Asks everybody each second.
        metrics_port: Where the gateway's agent is asked.
        plain: Versions that answer everything, and at once.
    """

    gateway: GatewayBench
    servers: dict[str, RunningServer]
    agents: dict[str, Agent]
    prometheus: PrometheusServer
    metrics_port: int
    leaders: list[Leader] = field(default_factory=list)
    plain: set[int] = field(default_factory=lambda: {1})

    @property
    def folder(self) -> Path:
        """Where commands run."""
        return self.gateway.sync.folder

    @property
    def registry(self) -> Registry:
        """What is followed."""
        return self.gateway.sync.registry

    @property
    def state(self) -> State:
        """What it says."""
        return self.registry.state(MODEL)

    @property
    def traffic(self) -> Traffic:
        """The rollout that is under way."""
        traffic = self.state.traffic
        assert traffic is not None
        return traffic

    def label(self, label: str, version: int | None) -> None:
        """Lets a label name a version, or nothing, and waits until its server and the gateway are there."""
        if self.state.labels.get(label) != version:
            if version is None:
                self.registry.unlabel(MODEL, label, origin=ORIGIN)
            else:
                self.registry.promote(MODEL, version, label, origin=ORIGIN)
        self.agents[label].serves({} if version is None else {label: version})
        self.gateway.agents[-1].shares(0)

    def publish(self, *, loads: bool = True, **how: Any) -> int:
        """Publishes a version.

        Args:
            loads: Whether a server can load it.
            how: As `TinyModels.write` takes it.
        """
        sync, tiny = self.gateway.sync, self.gateway.sync.tiny
        assert tiny is not None
        number = 1 + max([*self.registry.committed(MODEL), 0])

        def write(folder: Path) -> Path:
            return tiny.write(folder, number, **how) if loads else tiny.write_truncated(folder, number)

        assert sync.publish(MODEL, write=write) == number
        if loads and not how:
            self.plain.add(number)
        return number

    def stable(self) -> int:
        """The version that stable names and its server answers with, one that answers everything at once."""
        version = self.state.labels["stable"]
        if version not in self.plain:
            version = self.publish()
            self.label("stable", version)
        return version

    def load(self, *, clients: int = 4, pace: float = QUIET) -> AbstractContextManager[Load]:
        """Clients that ask inside the block."""
        envoy = self.gateway.envoy
        return asking(envoy.rest_port, envoy.target, MODEL, clients=clients, pace=pace)

    def bake(self, load: Load, share: float) -> str:
        """A time of baking in which a side with this share gets enough requests, at the rate BUSY has here and now."""
        before, began, count = load.pace, time.monotonic(), len(load.answers)
        load.pace = BUSY
        self.until(lambda: len(load.answers) > count + 50 and time.monotonic() > began + 2, "there is load")
        rate = (len(load.answers) - count) / (time.monotonic() - began)
        load.pace = before
        return f"{max(4.0, _ENOUGH / share / rate):.1f}s"

    def lead(self, reference: str | int, *options: str) -> Leader:
        """Starts `slipway rollout`."""
        out, err = (self.folder / f"rollout-{len(self.leaders)}.{name}" for name in ("out", "err"))
        arguments = ["rollout", str(reference) if isinstance(reference, str) else f"{MODEL}:{reference}", *options]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [SLIPWAY, *arguments, "--prometheus", self.prometheus.url],
                cwd=self.folder,
                env={**os.environ, "TMPDIR": str(scratch_of(self.folder))},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        self.leaders.append(Leader(process, out, err))
        return self.leaders[-1]

    def slipway(self, *arguments: str) -> Outcome:
        """Runs any command."""
        return slipway(*arguments, folder=self.folder)

    def history(self, since: int) -> list[dict[str, Any]]:
        """What `slipway history --json` tells of what was done after a revision, oldest first."""
        told = json.loads(self.slipway("history", MODEL, "--json").stdout)["transitions"]
        return [record for record in reversed(told) if record["revision"] > since]

    def records(self, since: int) -> list[Record]:
        """The same as the registry has it."""
        return [record for record in reversed(self.registry.history(MODEL)) if record.revision > since]

    def until(self, reached: Callable[[], Any], what: str, leader: Leader | None = None) -> Any:
        """Asks again and again until the answer is true, and returns it; `leader` has to be there meanwhile."""
        deadline = time.monotonic() + WITHIN
        while not (found := reached()):
            said = leader.said if leader else ""
            assert leader is None or leader.process.poll() is None, f"it ended before {what}\n{said}"
            assert time.monotonic() < deadline, f"expected that {what}\n{self.state.traffic}\n{said}"
            time.sleep(0.1)
        return found

    def until_baking(self, leader: Leader, step: int = 0) -> Traffic:
        """Waits until a step's weight is in force and judged."""

        def baking() -> Traffic | None:
            traffic = self.state.traffic
            there = traffic and (traffic.phase, traffic.step, traffic.paused) == ("baking", step, "")
            return traffic if there else None

        return self.until(baking, f"step {step + 1} bakes", leader)  # type: ignore[no-any-return]

    def answered(self, version: int) -> int:
        """How many answers of a version Envoy has counted, of both kinds of requests."""
        wanted = {"model": MODEL, "version": str(version), envoy_metrics.CLASS: "2"}
        return int(self.gateway.envoy.value(envoy_metrics.REQUESTS, **wanted))

    def start_gateway_agent(self) -> GatewayProcess:
        """Starts one where Prometheus asks it."""
        return self.gateway.agent(UNHASTY, f"--listen=127.0.0.1:{self.metrics_port}")

    def settle(self) -> None:
        """Brings everything back to where a rollout may begin, whatever a test left."""
        for leader in self.leaders:
            if leader.process.poll() is None:
                leader.kill()
        if not self.prometheus.is_running:
            self.prometheus.start()
        if self.gateway.agents[-1].process.poll() is not None:
            self.start_gateway_agent()
        if self.state.traffic:
            self.slipway("rollout", MODEL, "--abort", "--prometheus", self.prometheus.url)
        self.label("canary", None)
        self.label("stable", self.state.labels["stable"])

    def close(self) -> None:
        """Ends what leads a rollout, and shows what the others said."""
        for leader in self.leaders:
            if leader.process.poll() is None:
                leader.kill()
        print(self.prometheus.tail())
