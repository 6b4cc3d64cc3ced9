"""Fixtures for a real Prefect server and its workers.

Starting the server takes seconds, so that tests which use it share two workers of pytest-xdist, with a server each:
`xdist_group("prefect")` for flows and commands, `xdist_group("prefect-workers")` for deployments, their workers and
conversions. In one they would be the last to end by far.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.made_once import made_once
from tests.support.prefect_processes import (
    PrefectServer,
    PrefectWorker,
    make_database,
    running_server,
    running_worker,
    send_what_is_left,
)

StartWorker = Callable[..., PrefectWorker]


class SharedServer:
    """The server of a group of tests: started when the first one asks, ended when the last one is over.

    A server costs processor time as long as it runs, and what others test in the meantime has nothing from it.
    """

    def __init__(self, homes: pytest.TempPathFactory, database: Path) -> None:
        self._homes = homes
        self._database = database
        self._running = contextlib.ExitStack()
        self._server: PrefectServer | None = None

    def get(self) -> PrefectServer:
        """The server, which is started if none runs."""
        if self._server is None:
            home = self._homes.mktemp("prefect")
            self._server = self._running.enter_context(running_server(home, database=self._database))
        return self._server

    def end(self) -> None:
        """Ends it, if it runs."""
        if self._server is not None:
            send_what_is_left()
        self._server = None
        self._running.close()


_SHARED = pytest.StashKey[SharedServer]()


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as a server leaves it that has just been started: its migrations run once for all workers."""
    folder = made_once(tmp_path_factory, "prefect-database", lambda folder: make_database(folder / "prefect.db"))
    return folder / "prefect.db"


@pytest.fixture(scope="session")
def _shared_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prefect_database: Path
) -> Iterator[SharedServer]:
    server = request.config.stash[_SHARED] = SharedServer(tmp_path_factory, prefect_database)
    yield server
    server.end()


@pytest.fixture
def prefect_server(_shared_server: SharedServer) -> PrefectServer:
    """A server on a free port, with a database of its own, for all tests of a group."""
    return _shared_server.get()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Ends the server with the last test of a group. With pytest-xdist a group's tests follow each other."""
    yield
    server = item.config.stash.get(_SHARED, None)
    if server and (nextitem is None or _group_of(nextitem) != _group_of(item)):
        server.end()


def _group_of(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("xdist_group")
    return str(marker.args[0]) if marker else None


@pytest.fixture
def prefect_worker(prefect_server: PrefectServer) -> Iterator[StartWorker]:
    """Starts a worker: `prefect_worker(pool, environ={...})`."""
    with contextlib.ExitStack() as workers:
        yield lambda pool, environ=None: workers.enter_context(running_worker(prefect_server, pool, environ))
