"""A real Prefect server and real workers, each a process on loopback, polled until ready and ended by its id."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.support.ports import free_port

_START_SECONDS = 120
_STOP_SECONDS = 20
_LOG_TAIL = 4000
# Shorter than the server keeps a connection without requests, so that none is used that it is just closing.
_KEPT_SECONDS = 2.0
# Of what a server does at its start and every few seconds: not what is in the database that it is given, and no runs by
# the clock, late runs and paused runs, which no test waits for.
_LEAN = {
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
}


@dataclass(frozen=True)
class PrefectServer:
    """A running server.

    Attributes:
        api_url: What a client calls PREFECT_API_URL.
        home: The PREFECT_HOME of the server and of every process that talks to it.
        log: What the server printed.
        client: Asks it. One for all requests: each new one would read all certificates first, thirty times the work.
    """

    api_url: str
    home: Path
    log: Path
    client: httpx.Client

    def environ(self) -> dict[str, str]:
        """A whole environment for a process that shall talk to this server and no other."""
        return {
            **os.environ,
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_CLI_PROMPT": "false",
        }

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Makes flows called in this process report to the server."""
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: self.api_url}):
            yield


@dataclass(frozen=True)
class PrefectWorker:
    """A running worker of type `process`.

    Attributes:
        pool: The work pool it polls.
        name: Its name there.
        log: What it and its flow runs printed.
        pid: Its process id.
    """

    pool: str
    name: str
    log: Path
    pid: int

    def kill(self) -> None:
        """Ends it and all it started at once, as a machine that is switched off does."""
        for process in [*psutil.Process(self.pid).children(recursive=True), psutil.Process(self.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextlib.contextmanager
def running_server(home: Path, *, ui: bool = False, database: Path | None = None) -> Iterator[PrefectServer]:
    """A server on a free port.

    Args:
        home: Where its database and log go.
        ui: Whether it serves its pages too.
        database: One that `make_database` made. The server begins with a copy of it, and does no more than tests need.
    """
    port = free_port()
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}/api/",
        timeout=60,
        trust_env=False,
        limits=httpx.Limits(keepalive_expiry=_KEPT_SECONDS),
    )
    server = PrefectServer(f"http://127.0.0.1:{port}/api", home, home / "server.log", client)
    environ = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_ENABLED": str(ui).lower(),
        "PREFECT_UI_API_URL": server.api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    if database is not None:
        shutil.copyfile(database, home / "prefect.db")
        environ.update(_LEAN)
    command = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with client, _running(command, environ, server.log) as process:
        _until(lambda: _answers(server), process, server.log, "the Prefect server answers")
        yield server


def make_database(database: Path) -> None:
    """Makes the database of a server that has just been started, without the server.

    Args:
        database: Where it goes.
    """
    with tempfile.TemporaryDirectory(prefix="prefect-database-") as home:
        with running_server(Path(home)):
            pass
        made = Path(home) / "prefect.db"
        with contextlib.closing(sqlite3.connect(made)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what the server did not come to write back
        shutil.copyfile(made, database)


def send_what_is_left() -> None:
    """Waits until the server has the logs and events of flows called in this process.

    Threads of Prefect's send them behind its back, and would go on trying when the server is gone.
    """
    if "prefect.events.worker" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for kind in (APILogWorker, EventsWorker):
        kind.drain_all(timeout=_STOP_SECONDS, at_exit=False)


@contextlib.contextmanager
def running_worker(server: PrefectServer, pool: str, environ: dict[str, str] | None = None) -> Iterator[PrefectWorker]:
    """A worker of type `process`; its pool is made if it is not there.

    Args:
        server: Whose runs it takes.
        pool: Which pool it polls.
        environ: Variables for it and its flow runs.
    """
    name = f"{pool}-{time.monotonic_ns()}"
    log = server.home / f"{name}.log"
    command = ["worker", "start", "--pool", pool, "--type", "process", "--name", name]
    with _running(command, {**server.environ(), **(environ or {})}, log) as process:
        worker = PrefectWorker(pool, name, log, process.pid)
        _until(lambda: _is_online(server, worker), process, worker.log, f"worker {name} is online")
        yield worker
    # The server would take it for online for another minute and a half.
    entry = f"work_pools/{pool}/workers/{name}"
    _until(lambda: server.client.delete(entry).is_success, None, worker.log, "its entry goes")


@contextlib.contextmanager
def _running(command: list[str], environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a `prefect` command, and ends it with all its children by their ids."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            env=environ,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in psutil.wait_procs(children, timeout=1)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes] | None, log: Path, what: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        ended = process.poll() if process else None
        if ended is not None or time.monotonic() > deadline:
            found = f"it ended with code {ended}" if ended is not None else f"not within {_START_SECONDS} s"
            tail = log.read_text(errors="replace")[-_LOG_TAIL:]
            raise RuntimeError(f"expected that {what}; found: {found}\n{tail}")
        time.sleep(0.2)


def _answers(server: PrefectServer) -> bool:
    try:
        return server.client.get("health", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _is_online(server: PrefectServer, worker: PrefectWorker) -> bool:
    answer = server.client.post(f"work_pools/{worker.pool}/workers/filter", json={}, timeout=5)
    if answer.status_code == httpx.codes.NOT_FOUND:  # the worker makes its pool first
        return False
    answer.raise_for_status()
    return any(found["name"] == worker.name and found["status"] == "ONLINE" for found in answer.json())
