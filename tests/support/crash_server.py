"""A process that lets others die: it forks a child for each order, and tells what became of it.

It has one thread and no connections, so a child begins as a fresh process would, and without the second
that an interpreter takes to start. Each order is a line of JSON on stdin; so is the answer, on stdout.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_registry.registry import Registry
from model_registry.storage import ObjectStore, open_store
from model_registry.storage.s3 import S3Store
from model_registry.storage.s3_client import connect
from tests.support.kill_points import Level, Tripwire, WatchedStore, watch_file_system, watch_requests
from tests.support.operations import OPERATIONS

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_REPOSITORY = Path(__file__).resolve().parents[2]
_CHILD_SECONDS = 60


@dataclass(frozen=True)
class Order:
    """What a child shall do, and where it shall die.

    Attributes:
        url: Of the registry.
        operation: Name of one of `OPERATIONS`.
        level: Which kind of points are counted.
        at: The number of the deadly one, from 0; None to live.
        scratch: Directory for temporary files.
    """

    url: str
    operation: str
    level: Level
    at: int | None
    scratch: str


@dataclass(frozen=True)
class Outcome:
    """What became of a child.

    Attributes:
        signal: Which ended it; 0 if it came to its end.
        status: Its exit status.
        points: Those it passed, and the one it died at.
    """

    signal: int
    status: int
    points: list[str]


class CrashServer:
    """The other end of such a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def send(self, order: Order) -> Outcome:
        """Lets a child do it; returns when that has ended.

        Raises:
            RuntimeError: If the server is gone.
        """
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the crash server ended with status {self._process.wait(10)}")
        return Outcome(**json.loads(answer))


@contextmanager
def run_crash_server() -> Iterator[CrashServer]:
    """Starts one with this process's environment, and ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.crash_server"],
        cwd=_REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield CrashServer(process)
    finally:
        process.kill()
        process.communicate()


def store_at(url: str, client: S3Client | None) -> ObjectStore:
    """Opens a registry with a client that is there: making one takes as long as publishing a version."""
    if client is None:
        return open_store(url)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return S3Store(bucket, prefix, client=client)


def make_client() -> S3Client | None:
    """A client that was never used, and has no connection yet, or None where no server is named."""
    return connect(attempts=5, read_timeout=60) if "AWS_ENDPOINT_URL" in os.environ else None


def _serve() -> None:
    client = make_client()
    sys.dont_write_bytecode = True  # or a child would write some, and others not
    for line in sys.stdin:
        order = Order(**json.loads(line))
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            _run(order, client, tell)
        os.close(tell)
        with open(told, encoding="utf-8", errors="replace") as points:
            passed = points.read().splitlines()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps(asdict(Outcome(max(0, -status), max(0, status), passed))), flush=True)


def _run(order: Order, client: S3Client | None, tell: int) -> None:
    signal.alarm(_CHILD_SECONDS)  # ends a child that hangs
    status = 1
    try:
        tempfile.tempdir = order.scratch
        wire = Tripwire(order.at, tell)
        store = store_at(order.url, client)
        if order.level == "calls":
            store = WatchedStore(store, wire)  # type: ignore[assignment]  # it passes on what the other has
        elif client is None:
            watch_file_system(wire)
        else:
            watch_requests(wire)
        OPERATIONS[order.operation].run(Registry(store), "killed")
        wire.cross("at its end")
        status = 0
    finally:  # whatever happens, a child never goes on as the server
        if status:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
