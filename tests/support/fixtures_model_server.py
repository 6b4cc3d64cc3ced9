"""Fixtures of model servers and of very small models for them.

All servers of a worker of pytest-xdist are forks of one process, which is there once a test asks for one: put tests
that use them into one group, `pytestmark = pytest.mark.xdist_group("model_server")`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.made_once import made_once
from tests.support.model_server_launchers import Launcher, launcher
from tests.support.model_server_processes import RunningServer
from tests.support.tiny_models import TinyModels, make

StartServer = Callable[..., RunningServer]
StartServers = Callable[..., list[RunningServer]]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Writes versions of a very small model without TensorFlow."""
    return TinyModels(made_once(tmp_path_factory, "tiny-models", make))


@pytest.fixture(scope="session")
def model_server_launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """What starts servers."""
    with launcher(tmp_path_factory.mktemp("model-servers")) as found:
        yield found


@pytest.fixture
def model_server(model_server_launcher: Launcher, tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server: `model_server(config_file=PATH, **flags)`; `wait=False` does not wait until it is ready.

    The flags are those of tensorflow_model_server, without their dashes. The file is polled each second, and labels
    may be in it from the start, unless the flags say otherwise.
    """
    with contextlib.ExitStack() as servers:

        def start(
            config_file: Path | None = None, *, wait: bool = True, environ: dict[str, str] | None = None, **flags: Any
        ) -> RunningServer:
            if config_file is not None:
                flags = {
                    "model_config_file": config_file,
                    "model_config_file_poll_wait_seconds": 1,
                    "allow_version_labels_for_unavailable_models": True,
                    **flags,
                }
            log = tmp_path / f"model-server-{len(started)}.log"
            server = RunningServer(model_server_launcher, log, flags)
            started.append(servers.enter_context(server.start(environ)))
            return server.wait_ready() if wait else server

        started: list[RunningServer] = []
        yield start
        for server in started:
            print(server.tail())


@pytest.fixture
def many_model_servers(model_server: StartServer) -> StartServers:
    """Starts a server for each configuration file, beside one another: `many_model_servers([PATH, ...], **flags)`."""

    def start(config_files: Sequence[Path], **flags: Any) -> list[RunningServer]:
        servers = [model_server(file, wait=False, **flags) for file in config_files]
        return [server.wait_ready() for server in servers]

    return start
