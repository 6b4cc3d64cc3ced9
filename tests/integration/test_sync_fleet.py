"""Ten servers with an agent each on one bucket: what is promoted comes to all of them, whoever is killed on the way."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_registry.registry import Registry
from tests.support.command import Outcome, slipway
from tests.support.fixtures_model_server import StartServer
from tests.support.fixtures_s3 import Bucket
from tests.support.model_server_processes import RunningServer
from tests.support.ports import free_port
from tests.support.served_models import answered_version
from tests.support.sync_bench import Agent, SyncBench
from tests.support.tiny_models import TinyModels

pytestmark = [pytest.mark.xdist_group("promotion"), pytest.mark.timeout(600)]

_SERVERS = 10
# Ten agents share the machine with what they look at.
_PACED = ("--interval=1", "--stagger=2")


@dataclass
class Fleet:
    """Ten servers, an agent beside each, and the bucket that they follow."""

    bench: SyncBench
    servers: list[RunningServer]
    agents: list[Agent]

    def start(self, place: int) -> Agent:
        """Starts the agent beside a server."""
        self.agents[place] = _agent(self.bench, place, self.servers[place].url)
        return self.agents[place]

    def promote(self, *command: str) -> Outcome:
        """Moves a label and waits for all agents."""
        waiting = [f"--agent={agent.url}" for agent in self.agents]
        return slipway(
            *command,
            f"--registry={self.bench.registry.store.uri}",
            "--wait",
            *waiting,
            "--json",
            folder=self.bench.folder,
            environ=os.environ | self.bench.environ,
        )

    def answers(self) -> set[int | str]:
        """What the servers answer to a request for `stable`."""
        return {answered_version(server, "digits", label="stable") for server in self.servers}


def _agent(bench: SyncBench, place: int, server: str, *, wait: bool = True) -> Agent:
    destination = bench.folder / f"server-{place}"
    return bench.agent(*_PACED, f"--name=agent-{place}", server=server, destination=destination, wait=wait)


@pytest.fixture
def fleet(tmp_path: Path, s3_bucket: Bucket, tiny_models: TinyModels, model_server: StartServer) -> Iterator[Fleet]:
    """Servers that were started on the first version of digits, which the agent beside each had brought by then."""
    bench = SyncBench(tmp_path, Registry.open(s3_bucket.url), tiny_models, s3_bucket.environ())
    ports = [free_port() for _ in range(_SERVERS)]
    try:
        bench.stable()
        agents = [_agent(bench, place, f"http://127.0.0.1:{port}", wait=False) for place, port in enumerate(ports)]
        for agent in agents:
            agent.until((agent.destination / "models.config").exists, "the first config is written")
        servers = [
            model_server(agent.destination / "models.config", wait=False, rest_api_port=port, max_num_load_retries=0)
            for agent, port in zip(agents, ports, strict=True)
        ]
        for server, agent in zip(servers, agents, strict=True):
            server.wait_ready()
            agent.serves({"stable": 1})
        yield Fleet(bench, servers, agents)
    finally:
        bench.close()


def test_what_is_promoted_reaches_every_server_whoever_is_killed_on_the_way(fleet: Fleet) -> None:
    fleet.bench.publish()

    promoted = fleet.promote("promote", "digits:2", "stable")

    assert promoted.code == 0, promoted
    assert fleet.answers() == {2}
    assert [agent["serving"] for agent in promoted.document["agents"]] == [2] * _SERVERS
    assert all(agent.log.count("digits:2 downloaded") == 1 for agent in fleet.agents)

    fleet.bench.publish()
    fleet.bench.promote(3)
    for place in random.Random(0).sample(range(_SERVERS), 5):
        fleet.agents[place].kill()
        fleet.start(place)
    for agent in fleet.agents:
        agent.serves({"stable": 3})

    assert fleet.answers() == {3}

    rolled_back = fleet.promote("rollback", "digits", "stable")

    assert rolled_back.code == 0, rolled_back
    assert fleet.answers() == {2}
