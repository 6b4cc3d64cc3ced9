"""A real Prometheus for tests: its process, its data and what it answers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

_READY_SECONDS = 60.0
_END_SECONDS = 30.0
_LOG_TAIL = 4000


@dataclass(frozen=True)
class Sample:
    """One series of an answer.

    Attributes:
        labels: Its labels; the metric's name is `__name__`. Empty for a scalar.
        value: Its value; may be NaN.
        at: When, in seconds since 1970 by Prometheus' clock.
    """

    labels: Mapping[str, str]
    value: float
    at: float


class QueryError(Exception):
    """Prometheus refused a query; the message is its own."""


def program(name: str) -> Path | None:
    """Where `prometheus` or `promtool` is; None where it is missing."""
    found = shutil.which(name)
    return Path(found) if found else None


class PrometheusServer:
    """A server on a loopback port of its own, which keeps its data over a restart.

    As a context it is started, and killed at the end:

        with PrometheusServer(config_text, tmp_path / "prometheus") as prometheus:
            prometheus.until('up{job="tf-serving"} == 1')

    Args:
        config: The text of prometheus.yml, or a file, which it reads where it lies. Text is written to `config_file`,
            below `folder`: rule files may be named relative to that.
        folder: A directory of its own; made where it is missing.
        options: More of its command line's options.

    Attributes:
        config_file: What it reads; changed, it is taken up by `reload`.
        port: Where it listens.
        log: What it prints, of all starts.
        process: Of the last start.
    """

    def __init__(self, config: str | Path, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(config, str):
            self.config_file = folder / "prometheus.yml"
            self.config_file.write_text(config)
        else:
            self.config_file = config
        self.port = free_port()
        self.log = folder / "prometheus.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._data = folder / "data"
        self._options = options

    @property
    def url(self) -> str:
        """What API paths are appended to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id; 0 before the first start."""
        return self.process.pid if self.process else 0

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process is not None and self.process.poll() is None

    def __enter__(self) -> PrometheusServer:
        return self if self.is_running else self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *, wait: bool = True) -> PrometheusServer:
        """Starts it, and waits until it answers queries.

        Raises:
            RuntimeError: If it does not get ready; the message has its log.
        """
        command = [
            "prometheus",
            f"--config.file={self.config_file}",
            f"--storage.tsdb.path={self._data}",
            "--storage.tsdb.retention.time=1h",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-lifecycle",
            "--log.level=warn",
            "--scrape.discovery-reload-interval=250ms",  # of targets that come and go; five seconds by default
            *self._options,
        ]
        with self.log.open("ab") as output:
            # Two threads are enough for what a test stores, on a machine that runs other tests beside it.
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "GOMAXPROCS": "2"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self.wait_ready() if wait else self

    def wait_ready(self, seconds: float = _READY_SECONDS) -> PrometheusServer:
        """Waits until it answers queries.

        Raises:
            RuntimeError: If it does not get ready; the message has its log.
        """
        deadline = time.monotonic() + seconds
        while not self._is_ready():
            if not self.is_running or time.monotonic() > deadline:
                code = self.process and self.process.poll()
                self.kill()
                raise RuntimeError(f"expected Prometheus to get ready within {seconds} s (code {code})\n{self.tail()}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """SIGTERM, and waits until it is gone; what it scraped is kept."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_END_SECONDS)

    def restart(self) -> PrometheusServer:
        """Kills it and starts it again, on the same port and data; whoever stopped it before starts it so, too."""
        self.kill()
        return self.start()

    def reload(self, config: str | None = None) -> None:
        """Takes up the configuration and rules as they are on the disk now.

        Args:
            config: Written to `config_file` before.

        Raises:
            QueryError: If it refuses them.
        """
        if config is not None:
            self.config_file.write_text(config)
        self._ask("/-/reload", b"")

    def query(self, promql: str, *, at: float | None = None) -> list[Sample]:
        """What an expression is.

        Args:
            promql: The expression, of an instant vector or a scalar.
            at: When, in seconds since 1970; now where None.

        Raises:
            QueryError: If Prometheus refuses it.
            OSError: If Prometheus does not answer.
        """
        asked = {"query": promql} | ({} if at is None else {"time": repr(at)})
        found = self.api("query", **asked)
        if found["resultType"] == "scalar":
            return [_sample({}, found["result"])]
        if found["resultType"] != "vector":
            raise QueryError(f"expected an instant vector or a scalar of {promql!r}, found a {found['resultType']}")
        return [_sample(series["metric"], series["value"]) for series in found["result"]]

    def value(self, promql: str) -> float:
        """The one value of an expression of one series.

        Raises:
            QueryError: If Prometheus refuses it, or it is not one series.
        """
        found = self.query(promql)
        if len(found) != 1:
            raise QueryError(f"expected one series of {promql!r}, found {found}")
        return found[0].value

    def until(
        self,
        promql: str,
        reached: Callable[[list[Sample]], Any] = bool,
        *,
        what: str = "",
        seconds: float = 60.0,
    ) -> list[Sample]:
        """Asks again and again until the answer is as expected, and returns it.

        Args:
            promql: The expression; `up == 1` has series as soon as it is so.
            reached: Whether an answer is the one that is waited for; by default one with any series.
            what: What that means, for whoever reads that it did not come.
            seconds: How long.

        Raises:
            AssertionError: If it does not come; the message has the last answer, the targets and the log.
            QueryError: If Prometheus refuses the expression.
        """
        deadline = time.monotonic() + seconds
        while not reached(found := self.query(promql)):
            assert time.monotonic() < deadline, (
                f"expected {what or 'an answer'} of {promql!r} within {seconds} s, found {found}\n"
                f"targets: {self.targets()}\n{self.tail()}"
            )
            time.sleep(0.1)
        return found

    def targets(self) -> dict[str, str]:
        """How each target is that it scrapes, by URL: its health and last error."""
        active = self.api("targets", state="active")["activeTargets"]
        return {target["scrapeUrl"]: f"{target['health']} {target['lastError']}".rstrip() for target in active}

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing: `labels`, `annotations`, `state`, `value`."""
        found: list[dict[str, Any]] = self.api("alerts")["alerts"]
        return found

    def api(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of `/api/v1/PATH`.

        Raises:
            QueryError: If Prometheus refuses it.
            OSError: If Prometheus does not answer.
        """
        return json.loads(self._ask(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]

    def tail(self) -> str:
        """The end of its log."""
        said = self.log.read_text(errors="replace")[-_LOG_TAIL:] if self.log.exists() else ""
        return f"the log of Prometheus on port {self.port}:\n{said}"

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body), timeout=30) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            with contextlib.suppress(ValueError, KeyError):
                said = json.loads(said)["error"]
            raise QueryError(f"{error.code}: {said}") from None

    def _is_ready(self) -> bool:
        try:
            self._ask("/-/ready")
        except (OSError, QueryError):
            return False
        return True


def _sample(labels: Mapping[str, str], value: tuple[float, str]) -> Sample:
    return Sample(labels, float(value[1]), float(value[0]))
