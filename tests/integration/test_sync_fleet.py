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
from tests.support.fixtures_model_server import StartServers
from tests.support.fixtures_s3 import Bucket
from tests.support.model_server_processes import RunningServer
from tests.support.served_models import answered_version
from tests.support.sync_bench import Agent, SyncBench
from tests.support.tiny_models import TinyModels

pytestmark = [pytest.mark.xdist_group("promotion"), pytest.mark.timeout(600)]

_SERVERS = 10
_STAGGER = "--stagger=2"


@dataclass
class Fleet:
    """Ten servers, an agent beside each, and the bucket that they follow."""

    bench: SyncBench
    servers: list[RunningServer]
    agents: list[Agent]

    def start(self, place: int) -> Agent:
        """Starts the agent beside a server."""
        name = f"agent-{place}"
        self.agents[place] = self.bench.agent(
            f"--name={name}", _STAGGER, server=self.servers[place].url, destination=_destination(self.bench, place)
        )
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


def _destination(bench: SyncBench, place: int) -> Path:
    return bench.folder / f"server-{place}"


@pytest.fixture
def fleet(
    tmp_path: Path, s3_bucket: Bucket, tiny_models: TinyModels, many_model_servers: StartServers
) -> Iterator[Fleet]:
    """Servers that were started empty-handed, but for the first version of digits, which each agent brought."""
    bench = SyncBench(tmp_path, Registry.open(s3_bucket.url), tiny_models, s3_bucket.environ())
    try:
        bench.stable()
        configs = [_destination(bench, place) / "models.config" for place in range(_SERVERS)]
        agents = [
            bench.agent(f"--name=agent-{place}", _STAGGER, destination=file.parent, wait=False)
            for place, file in enumerate(configs)
        ]
        for agent, file in zip(agents, configs, strict=True):
            agent.until(file.exists, "the first config is written")
            agent.kill()
        fleet = Fleet(bench, many_model_servers(configs, max_num_load_retries=0), agents)
        for place in range(_SERVERS):
            fleet.start(place)
        yield fleet
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
