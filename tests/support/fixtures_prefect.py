"""Fixtures for a real Prefect server and its workers.

Starting the server takes seconds, so that tests which use it share two workers of pytest-xdist, with a server each:
`xdist_group("prefect")` for flows and commands, `xdist_group("prefect-workers")` for deployments, their workers and
conversions. In one they would be the last to end by far.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.support.prefect_processes import PrefectServer, PrefectWorker, running_server, running_worker

StartWorker = Callable[..., PrefectWorker]


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server on a free port, with a database of its own."""
    with running_server(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture
def prefect_worker(prefect_server: PrefectServer) -> Iterator[StartWorker]:
    """Starts a worker: `prefect_worker(pool, environ={...})`."""
    with contextlib.ExitStack() as workers:
        yield lambda pool, environ=None: workers.enter_context(running_worker(prefect_server, pool, environ))
