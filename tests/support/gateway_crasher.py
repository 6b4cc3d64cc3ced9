"""A process that lets a gateway's agent die: it forks a child for each order, which ends at a write, or lives.

Each order is a line of JSON on stdin; what became of the child is one on stdout.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from model_registry.registry import Registry
from model_registry.serving.fleet_file import load_fleet
from model_registry.serving.gateway import gateway_agent
from model_registry.serving.gateway.gateway_agent import GatewayAgent
from model_registry.serving.gateway.gateway_metrics import GatewayMetrics
from model_registry.serving.gateway.gateway_settings import GatewaySettings
from tests.support.kill_points import Tripwire, watch_file_system

_REPOSITORY = Path(__file__).resolve().parents[2]
_CHILD_SECONDS = 60


@dataclass(frozen=True)
class Order:
    """What an agent shall do, and where it shall die.

    Attributes:
        directory: What it fills.
        fleet: The fleet file.
        registry: What it follows.
        revision: Of `digits`, that is to be in force.
        gone: What shall have left the names of the clusters by then.
        at: The number of the deadly write, from 0; None to live.
    """

    directory: str
    fleet: str
    registry: str
    revision: int
    gone: str
    at: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        signal: Which ended it; 0 if it came to its end.
        status: Its exit status.
        points: The writes it passed, and the one it died at.
    """

    signal: int
    status: int
    points: list[str]

    @property
    def lived(self) -> bool:
        """Whether it came to its end, and all was well."""
        return (self.signal, self.status) == (0, 0)


class GatewayCrasher:
    """The other end of such a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def send(self, order: Order) -> Outcome:
        """Lets a child do it; returns when that has ended."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


@contextmanager
def run_gateway_crasher() -> Iterator[GatewayCrasher]:
    """Starts one, and ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.gateway_crasher"],
        cwd=_REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield GatewayCrasher(process)
    finally:
        process.kill()
        process.communicate()


def _serve() -> None:
    sys.dont_write_bytecode = True  # or a child would write some, and others not
    gateway_agent._PACE = gateway_agent._BRISK = 0.02
    for line in sys.stdin:
        order = Order(**json.loads(line))
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            _run(order, tell)
        os.close(tell)
        with open(told, encoding="utf-8", errors="replace") as points:
            passed = points.read().splitlines()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps(asdict(Outcome(max(0, -status), max(0, status), passed))), flush=True)


def _run(order: Order, tell: int) -> None:
    signal.alarm(_CHILD_SECONDS)  # ends a child that hangs
    status = 1
    try:
        settings = GatewaySettings(Path(order.directory), load_fleet(Path(order.fleet)), interval=0.02, drain=0.1)
        registry = Registry.open(order.registry)
        watch_file_system(Tripwire(order.at, tell))
        agent = GatewayAgent(settings, registry, metrics=GatewayMetrics())
        _follow(agent, order)
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _follow(agent: GatewayAgent, order: Order) -> None:
    clusters = Path(order.directory) / "clusters.json"
    stop = threading.Event()
    while True:
        report = agent.settle(stop)
        in_force = report.well and report.models["digits"].revision == order.revision
        if in_force and order.gone not in clusters.read_text():
            return
        time.sleep(0.01)


if __name__ == "__main__":
    _serve()
