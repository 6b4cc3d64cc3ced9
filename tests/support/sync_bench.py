"""A registry, a sync agent and a model server beside each other, each a process as people run it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from model_registry.registry import Registry
from model_registry.servable import NATIVE
from model_registry.serving import model_config
from model_registry.serving.model_config import ServedModel
from model_registry.serving.sync.sync_agent import SyncAgent
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport
from model_registry.serving.sync.sync_settings import SyncSettings
from model_registry.state import Origin
from tests.support.command import SLIPWAY, Outcome, slipway
from tests.support.drafts import CONTENT, make_draft, make_payload
from tests.support.tiny_models import TinyModels

WITHIN = 40.0
ASKING = 0.1  # seconds between two requests for a report, which cost whoever asks and the agent some milliseconds each
NOBODY = "http://127.0.0.1:9"  # where no server is
# What waits for a person's comfort, or for a server that polls each ten seconds, need not wait in a test.
HASTY = ("--interval=0.2", "--settle=2.5", "--drain=0.2", "--stagger=0", "--reserve=1M")
ORIGIN = Origin("ann@build-7")


@dataclass
class Agent:
    """A `slipway sync` that runs.

    Attributes:
        process: It.
        destination: What it fills.
        log_file: What it says.
    """

    process: subprocess.Popen[bytes]
    destination: Path
    log_file: Path

    @property
    def log(self) -> str:
        """All that it said so far."""
        return self.log_file.read_text()

    @property
    def url(self) -> str:
        """Where it answers."""
        found = re.search(r"status at (http://\S+)/status", self.log)
        return found[1] if found else ""

    def report(self) -> AgentReport:
        """Its status."""
        with urllib.request.urlopen(f"{self.url}/status", timeout=10) as answer:
            return AgentReport.from_json(answer.read(), url=self.url)

    def model(self, name: str = "digits") -> ModelReport:
        """What it says of a model."""
        return self.report().models.get(name, ModelReport())

    def version(self, number: int, name: str = "digits") -> VersionReport | None:
        """What it says of a version."""
        return self.model(name).version(number)

    def retry(self, version: int, model: str = "digits") -> None:
        """Asks it to try again."""
        body = json.dumps({"model": model, "version": version}).encode()
        request = urllib.request.Request(f"{self.url}/retry", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()

    def until(self, reached: Callable[[], Any], what: str, seconds: float = WITHIN, *, pause: float = 0.05) -> Any:
        """Asks again and again until the answer is true, and returns it."""
        deadline = time.monotonic() + seconds
        while not (found := reached()):
            assert time.monotonic() < deadline, f"expected that {what}\n{self._state()}\n{self.log}"
            time.sleep(pause)
        return found

    def _state(self) -> AgentReport | int | None:
        """How it stands, for whoever waited in vain."""
        return self.report() if self.url and self.process.poll() is None else self.process.poll()

    def serves(self, labels: Mapping[str, int], name: str = "digits") -> None:
        """Waits until the server answers so, and nothing is on its way any more."""
        moving = {"WAITING", "DOWNLOADING", "READY", "LOADING", "LEAVING"}

        def reached() -> bool:
            model = self.model(name)
            return model.serving == labels and not moving & {version.state for version in model.versions}

        self.until(reached, f"{name} serves {labels}", pause=ASKING)

    def has(self, *versions: int, name: str = "digits") -> None:
        """Waits until versions are whole on the disk, though no server may be there to load them."""
        self.until(
            lambda: all(
                one and one.variant and one.state != "DOWNLOADING"
                for one in (self.version(version, name) for version in versions)
            ),
            f"{versions} are here",
            pause=ASKING,
        )

    def fails(self, version: int, name: str = "digits") -> VersionReport:
        """Waits until a version has failed."""
        return self.until(  # type: ignore[no-any-return]
            lambda: (one := self.version(version, name)) and one.state == "FAILED" and one,
            f"{name}:{version} failed",
            pause=ASKING,
        )

    def measured(self, metric: str) -> dict[str, float]:
        """What it tells Prometheus of a gauge of `digits`, by label."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        assert metric in {family.name for family in families}
        return {
            sample.labels["label"]: sample.value
            for family in families
            for sample in family.samples
            if family.name == metric and sample.labels["model"] == "digits"
        }

    def kill(self) -> None:
        """Ends it as a power cut does."""
        self.process.kill()
        self.process.wait(WITHIN)

    def end(self) -> int:
        """Ends it as an orchestrator does; tells its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WITHIN)


@dataclass
class SyncBench:
    """Where a test of the agent happens.

    Attributes:
        folder: A directory of its own.
        registry: What is followed.
        tiny: Writes models that a server loads; None where there is none.
        environ: What the agents' environment has besides.
    """

    folder: Path
    registry: Registry
    tiny: TinyModels | None = None
    environ: dict[str, str] = field(default_factory=dict)
    agents: list[Agent] = field(default_factory=list)

    @property
    def destination(self) -> Path:
        """What is filled, unless a test says otherwise."""
        return self.folder / "dest"

    @property
    def config_file(self) -> Path:
        """What the server reads."""
        return self.destination / "models.config"

    def config(self) -> dict[str, ServedModel]:
        """What it says, by model."""
        return {model.name: model for model in model_config.from_text(self.config_file.read_text(), path="")}

    def directory(self, version: int, model: str = "digits") -> Path:
        """Where a version lies."""
        return self.destination / "models" / model / str(version)

    def publish(self, model: str = "digits", *, write: Callable[[Path], Path] | None = None) -> int:
        """Publishes a version that answers with its own number, or what `write` writes below a directory."""
        number = 1 + max([*self.registry.committed(model), 0])
        staged = self.folder / "staged" / str(time.monotonic_ns())
        staged.mkdir(parents=True)
        if write:
            return self.publish_payload(write(staged), model)
        if self.tiny:
            return self.publish_payload(self.tiny.write(staged, number), model)
        return self.publish_payload(
            make_payload(staged / "payload", CONTENT | {"saved_model.pb": b"%d" % number}), model
        )

    def publish_payload(self, payload: Path, model: str = "digits", variant: str = NATIVE) -> int:
        """Publishes a directory."""
        draft = make_draft(model, identity=f"{time.monotonic_ns():064x}")
        if variant == NATIVE:
            version, _ = self.registry.publish(draft, {NATIVE: payload})
        else:
            native = shutil.copytree(payload, payload.with_name("native"))
            version, _ = self.registry.publish(draft, {NATIVE: native, variant: payload})
        return version.version

    def promote(self, version: int, label: str = "stable", model: str = "digits") -> None:
        """Lets a label name a version."""
        self.registry.promote(model, version, label, origin=ORIGIN)

    def stable(self, model: str = "digits") -> int:
        """Publishes a version and promotes it to `stable`."""
        version = self.publish(model)
        self.promote(version, model=model)
        return version

    def agent(self, *options: str, server: str = NOBODY, destination: Path | None = None, wait: bool = True) -> Agent:
        """Starts an agent."""
        destination = destination or self.destination
        log = self.folder / f"agent-{len(self.agents)}.log"
        command = [SLIPWAY, "sync", str(destination), f"--server={server}", "--listen=127.0.0.1:0", *HASTY, *options]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, f"--registry={self.registry.store.uri}"],
                cwd=self.folder,
                env=os.environ | self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
            )
        agent = Agent(process, destination, log)
        self.agents.append(agent)
        if wait:
            deadline = time.monotonic() + WITHIN
            while not agent.url:
                assert process.poll() is None and time.monotonic() < deadline, agent.log
                time.sleep(0.02)
        return agent

    def prepare(self) -> None:
        """Brings what a server may start with, as `slipway sync --once` does, without a process for it."""
        settings = SyncSettings(self.destination, server=NOBODY, reserve=1 << 20)
        agent = SyncAgent(settings, self.registry, metrics=SyncMetrics())
        try:
            agent.prepare()
        finally:
            assert agent.close()

    def once(self, *options: str, wrapper: list[str] | None = None) -> Outcome:
        """Runs `slipway sync --once`."""
        return slipway(
            "sync",
            self.destination,
            "--once",
            *HASTY,
            *options,
            f"--registry={self.registry.store.uri}",
            folder=self.folder,
            environ=os.environ | self.environ,
            wrapper=wrapper,
        )

    def close(self) -> None:
        """Ends all agents, and shows what they said."""
        for agent in self.agents:
            if agent.process.poll() is None:
                agent.kill()
            print(f"--- {agent.log_file.name} ({agent.process.returncode})\n{agent.log}")
