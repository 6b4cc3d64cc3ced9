"""Fixtures of Prometheus: its server, and the tool that checks configurations and rules."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.prometheus_server import PrometheusServer, program

StartPrometheus = Callable[..., PrometheusServer]


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    """Where Prometheus is; skips where it is missing, but fails under CI."""
    return _found("prometheus")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Where its tool is; skips where it is missing, but fails under CI."""
    return _found("promtool")


@pytest.fixture
def start_prometheus(prometheus_program: Path, tmp_path: Path) -> Iterator[StartPrometheus]:
    """Starts a Prometheus, and kills it in the end: `start_prometheus(CONFIG_TEXT_OR_PATH, *options)`."""
    assert prometheus_program.exists()
    started: list[PrometheusServer] = []
    with contextlib.ExitStack() as servers:

        def start(config: str | Path, *options: str) -> PrometheusServer:
            server = PrometheusServer(config, tmp_path / f"prometheus-{len(started)}", *options)
            started.append(server)
            return servers.enter_context(server)

        yield start
        for server in started:
            print(server.tail())


def _found(name: str) -> Path:
    if found := program(name):
        return found
    reason = f"{name} is missing: install Prometheus, on Debian and Ubuntu `apt install prometheus`"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
