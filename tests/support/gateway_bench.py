"""A registry, a gateway's agent and a real Envoy beside each other; the servers say which path they were asked for."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from model_registry import rollout_transitions
from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.gateway_report import GatewayReport, RoutedReport
from model_registry.state import State, Transition
from model_registry.traffic import Plan
from tests.support.command import SLIPWAY, Outcome, slipway
from tests.support.envoy_process import EnvoyProcess
from tests.support.sync_bench import ASKING, ORIGIN, WITHIN, Agent, SyncBench

HASTY = ("--interval=0.1", "--drain=0.3")
PLAN = Plan(steps=(5, 25, 100))


class GatewayProcess(Agent):
    """A `slipway gateway` that runs."""

    def report(self) -> GatewayReport:  # type: ignore[override]
        """Its status."""
        return GatewayReport.from_json(self.ask("/status"), url=self.url)

    def model(self, name: str = "digits") -> RoutedReport:  # type: ignore[override]
        """What it says of a model."""
        return self.report().models.get(name, RoutedReport())

    def ask(self, path: str) -> bytes:
        """What it answers."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return answer.read()  # type: ignore[no-any-return]

    def shares(self, weight: int, revision: int | None = None, name: str = "digits") -> RoutedReport:
        """Waits until a weight is in force as the registry wants it."""

        def reached() -> RoutedReport | None:
            model = self.model(name)
            there = model.settled and model.weight == weight and revision in (None, model.revision)
            return model if there else None

        what = f"{weight} % of {name} by revision {revision or 'any'}"
        return self.until(reached, what, pause=ASKING)  # type: ignore[no-any-return]


@dataclass
class GatewayBench:
    """Where a test of the agent happens.

    Attributes:
        sync: The registry, and how versions come there.
        envoy: Not started yet.
    """

    sync: SyncBench
    envoy: EnvoyProcess
    agents: list[GatewayProcess] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """What the agent fills and Envoy reads."""
        return self.envoy.directory

    def fleet_file(self, **changes: Any) -> Path:
        """Writes the fleet file, with another gateway where a test says so."""
        path = self.sync.folder / "fleet.yaml"
        document = self.envoy.file.model_dump(mode="json", exclude_none=True, exclude_defaults=True) | changes
        path.write_text(json.dumps(document))
        return path

    def command(self, *options: str) -> list[str]:
        """What runs an agent."""
        fleet = f"--fleet={self.fleet_file()}"
        registry = f"--registry={self.sync.registry.store.uri}"
        return ["gateway", str(self.directory), fleet, registry, "--listen=127.0.0.1:0", *HASTY, *options]

    def agent(self, *options: str, wait: bool = True, wrapper: list[str] | None = None) -> GatewayProcess:
        """Starts an agent."""
        log = self.sync.folder / f"gateway-{len(self.agents)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*(wrapper or []), SLIPWAY, *self.command(*options)],
                cwd=self.sync.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
            )
        agent = GatewayProcess(process, self.directory, log)
        self.agents.append(agent)
        if wait:
            deadline = time.monotonic() + WITHIN
            while not agent.url:
                assert process.poll() is None and time.monotonic() < deadline, agent.log
                time.sleep(0.02)
        return agent

    def once(self, *options: str) -> Outcome:
        """Runs `slipway gateway --once`."""
        return slipway(*self.command("--once", *options), folder=self.sync.folder, environ=os.environ)

    def remove_files(self) -> None:
        """As a directory is before any agent was there."""
        for name in ("clusters.json", "routes.json"):
            (self.directory / name).unlink()

    def state(self, model: str = "digits") -> State:
        """What the registry says."""
        return self.sync.registry.state(model)

    def change(self, decide: Callable[[State], Transition | None], model: str = "digits") -> int:
        """Changes a rollout; tells the revision."""
        self.sync.registry.change_traffic(model, decide, origin=ORIGIN)
        return self.state(model).revision

    def begin(self, candidate: int, model: str = "digits") -> int:
        """Begins a rollout."""
        return self.change(partial(rollout_transitions.begin, model=model, candidate=candidate, plan=PLAN), model)

    def shift(self, step: int, model: str = "digits") -> int:
        """Gives canary the weight of a step."""
        return self.change(lambda state: rollout_transitions.shift(state.traffic, step), model)  # type: ignore[arg-type]

    def withdraw(self, model: str = "digits") -> int:
        """Takes all requests from canary."""
        return self.change(lambda state: rollout_transitions.withdraw(state.traffic, "worse"), model)  # type: ignore[arg-type]

    def get(self, path: str = "/v1/models/digits:predict") -> tuple[int, str]:
        """Status and body of a request through Envoy."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.envoy.rest_port, timeout=20)) as connection:
            connection.request("POST", path, b"{}")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def clusters(self) -> set[str]:
        """The names of those that the file has."""
        document = json.loads((self.directory / "clusters.json").read_text())
        return {cluster["name"] for cluster in document["resources"]}

    def close(self) -> None:
        """Ends everything, and shows what was said."""
        for agent in self.agents:
            if agent.process.poll() is None:
                agent.kill()
            print(f"--- {agent.log_file.name} ({agent.process.returncode})\n{agent.log}")
        self.envoy.kill()
        print(self.envoy.tail())


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the path that it was asked under."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@contextmanager
def echo() -> Iterator[int]:
    """A server that listens; tells its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def run_gateway_bench(sync: SyncBench) -> Iterator[GatewayBench]:
    """A bench with two fleets, `stable` and `canary`, of a server each."""
    with echo() as stable, echo() as canary:
        servers = {
            label: {"servers": [{"host": "127.0.0.1", "rest": port, "grpc": port}]}
            for label, port in (("stable", stable), ("canary", canary))
        }
        envoy = EnvoyProcess(FleetFile.model_validate({"fleets": servers}), sync.folder / "gateway")
        bench = GatewayBench(sync, envoy)
        try:
            yield bench
        finally:
            bench.close()
