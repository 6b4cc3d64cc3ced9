"""What starts a model server's process: the tests' own, or the real one that SLIPWAY_TF_SERVING names."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

_REPOSITORY = Path(__file__).resolve().parents[2]
_START_SECONDS = 120.0
_END_SECONDS = 60.0
_LOG_TAIL = 4000


class Launcher(Protocol):
    """Starts processes that serve."""

    def start(self, arguments: list[str], log: Path, environ: dict[str, str]) -> int:
        """Returns the process's id."""

    def code(self, pid: int, seconds: float) -> int | None:
        """The exit code, negative for a signal, or None if it runs on after that time."""


class BinaryLauncher:
    """Starts the real `tensorflow_model_server`."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, arguments: list[str], log: Path, environ: dict[str, str]) -> int:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [self._binary, *arguments],
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._processes[process.pid] = process
        return process.pid

    def code(self, pid: int, seconds: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._processes[pid].wait(seconds)
        return None


class ForkLauncher:
    """Starts the tests' own server, as forks of one process that has TensorFlow: some milliseconds each."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._host = subprocess.Popen(
                [sys.executable, "-m", "tests.support.model_server.fork_server"],
                cwd=_REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
            )
        self._started: queue.Queue[int] = queue.Queue()
        self._codes: dict[int, int] = {}
        self._ended = threading.Condition()
        self._starting = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, arguments: list[str], log: Path, environ: dict[str, str]) -> int:
        assert self._host.stdin is not None
        order = {"arguments": arguments, "log": str(log), "environ": environ}
        with self._starting:
            self._host.stdin.write(json.dumps(order).encode() + b"\n")
            self._host.stdin.flush()
            try:
                return self._started.get(timeout=_START_SECONDS)
            except queue.Empty:
                said = self._log.read_text(errors="replace")[-_LOG_TAIL:]
                raise RuntimeError(f"the process that forks model servers does not answer; its log:\n{said}") from None

    def code(self, pid: int, seconds: float) -> int | None:
        with self._ended:
            self._ended.wait_for(lambda: pid in self._codes, seconds)
            return self._codes.get(pid)

    def close(self) -> None:
        """Ends all of them."""
        assert self._host.stdin is not None and self._host.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._host.stdin.close()
        try:
            self._host.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._host.kill()
            self._host.wait()
        self._reader.join()
        self._host.stdout.close()

    def _read(self) -> None:
        assert self._host.stdout is not None
        for line in self._host.stdout:
            told = json.loads(line)
            if "started" in told:
                self._started.put(told["started"])
            elif "ended" in told:
                with self._ended:
                    self._codes[told["ended"]] = told["code"]
                    self._ended.notify_all()


@contextlib.contextmanager
def launcher(directory: Path) -> Iterator[Launcher]:
    """Whatever starts servers here: the binary that SLIPWAY_TF_SERVING names, or else the tests' own server."""
    if binary := os.environ.get("SLIPWAY_TF_SERVING"):
        yield BinaryLauncher(binary)
        return
    forks = ForkLauncher(directory / "fork-server.log")
    try:
        yield forks
    finally:
        forks.close()
