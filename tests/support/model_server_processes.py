"""A running model server: its process, its ports, its log and what it says of its versions."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.model_server_launchers import Launcher
from tests.support.ports import free_port

_READY_SECONDS = 120.0
_END_SECONDS = 60.0
_LOG_TAIL = 4000


class RunningServer:
    """A server's process, its ports and what it printed.

    Args:
        launcher: What starts it.
        log: Where it prints; appended to when it is started again.
        flags: Of `tensorflow_model_server`, but for the ports, which are chosen.

    Attributes:
        port: Of gRPC.
        rest_port: Of REST.
        pid: The process's id, of the last start.
    """

    def __init__(self, launcher: Launcher, log: Path, flags: dict[str, Any]) -> None:
        self.port = int(flags.pop("port", 0)) or free_port()
        self.rest_port = int(flags.pop("rest_api_port", 0)) or free_port()
        self.log = log
        self.pid = 0
        self._launcher = launcher
        self._flags = {"port": self.port, "rest_api_port": self.rest_port, **flags}

    @property
    def target(self) -> str:
        """What a gRPC client connects to."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What REST paths are appended to."""
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def log_text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, environ: dict[str, str] | None = None) -> RunningServer:
        """Starts the process, and does not wait."""
        arguments = [f"--{name}={_value(value)}" for name, value in self._flags.items()]
        self.pid = self._launcher.start(arguments, self.log, environ or {})
        return self

    def wait_ready(self, seconds: float = _READY_SECONDS) -> RunningServer:
        """Waits until both ports are open, which they are once its start-up configuration is loaded.

        Raises:
            RuntimeError: If it ends before, or takes too long; the message has its log.
        """
        deadline = time.monotonic() + seconds
        while not (self.answers() and _is_open(self.port)):
            code = self._launcher.code(self.pid, 0)
            if code is not None or time.monotonic() > deadline:
                found = f"it ended with code {code}" if code is not None else f"not within {seconds} s"
                raise RuntimeError(f"expected the model server to get ready, found: {found}\n{self.tail()}")
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        """Whether REST answers anything."""
        try:
            self.get("/v1/models/whatever")
        except OSError:
            return False
        return True

    def wait_end(self, seconds: float = _END_SECONDS) -> int:
        """Waits until the process has ended.

        Returns:
            Its exit code, negative for a signal.

        Raises:
            RuntimeError: If it runs on.
        """
        code = self._launcher.code(self.pid, seconds)
        if code is None:
            raise RuntimeError(f"expected the model server to end within {seconds} s, found it running\n{self.tail()}")
        return code

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return bool(self.pid) and self._launcher.code(self.pid, 0) is None

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and waits until it is gone."""
        self._end(signal.SIGTERM)

    def restart(self) -> RunningServer:
        """Starts it again with the same flags and ports, and waits until it is ready."""
        self.kill()
        return self.start().wait_ready()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET.

        Raises:
            OSError: If it does not answer.
        """
        return self._ask("GET", path, None)

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        """Status and body of a POST of JSON.

        Raises:
            OSError: If it does not answer.
        """
        status, body = self._ask("POST", path, json.dumps(document))
        return status, json.loads(body)

    def states(self, model: str) -> dict[int, str]:
        """The state of each version that the server lists; empty if it knows none."""
        return {version: state for version, (state, _) in self.statuses(model).items()}

    def statuses(self, model: str) -> dict[int, tuple[str, str]]:
        """State and error message of each version that the server lists."""
        _, body = self.get(f"/v1/models/{model}")
        listed = json.loads(body).get("model_version_status", [])
        return {int(item["version"]): (item["state"], item["status"]["error_message"]) for item in listed}

    def tail(self) -> str:
        """The end of its log."""
        return f"the log of the model server on {self.target}:\n{self.log_text[-_LOG_TAIL:]}"

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=30)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except http.client.HTTPException as error:
                raise ConnectionError(str(error)) from error

    def _end(self, sent: signal.Signals) -> None:
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sent)
            self.wait_end()


def until(reached: Callable[[], Any], server: RunningServer, what: str, seconds: float = 60.0) -> Any:
    """Asks again and again until the answer is true, and returns it.

    Raises:
        AssertionError: If it does not come; the message has the server's log.
    """
    deadline = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < deadline, f"expected that {what} within {seconds} s\n{server.tail()}"
        time.sleep(0.05)
    return found


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
