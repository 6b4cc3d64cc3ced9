"""Promotion while clients ask again and again, and the agent and the server are killed at random points.

What is asked for: no failed request beyond the server's own restart; never an answer from a version that was neither
the old nor the new one; and what the server answers follows the order of the history.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import pytest

from tests.support.fixtures_model_server import StartServer
from tests.support.model_server_processes import RunningServer
from tests.support.steady_load import Answer, Asker, steady_load
from tests.support.sync_bench import ORIGIN, Agent, SyncBench

pytestmark = [pytest.mark.xdist_group("promotion"), pytest.mark.timeout(600)]

_VERSIONS = 10
_KILLS = (("agent", 3), ("server", 2))  # at so many of the promotions


@dataclass
class Story:
    """What was done to a label, and to its server.

    Attributes:
        versions: What the label named, one after another.
        moved: When the registry was told so; the first long ago.
        served: When the server answered so and nothing was on its way any more.
        outages: From when to when the server was away.
    """

    versions: list[int] = field(default_factory=lambda: [1])
    moved: list[float] = field(default_factory=lambda: [0.0])
    served: list[float] = field(default_factory=lambda: [0.0])
    outages: list[tuple[float, float]] = field(default_factory=list)

    def allowed(self, answer: Answer) -> range:
        """Where in the history an answer may stand: between what was settled before, and what was asked for by then."""
        first = max(index for index, when in enumerate(self.served) if when <= answer.began)
        last = max(index for index, when in enumerate(self.moved) if when <= answer.ended)
        return range(first, last + 1)

    def excuses(self, answer: Answer) -> bool:
        """Whether the server was away while it was asked."""
        return any(began <= answer.ended and answer.began <= ended for began, ended in self.outages)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 11))])
def test_every_request_is_answered_by_the_old_or_the_new_version(
    sync_bench: SyncBench, model_server: StartServer, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(_VERSIONS):
        sync_bench.publish()
    sync_bench.promote(1)
    sync_bench.prepare()
    server = model_server(sync_bench.config_file, max_num_load_retries=0)
    agent, story = sync_bench.agent(server=server.url), Story()
    agent.serves({"stable": 1})
    at = dict(zip(chance.sample(range(2, _VERSIONS + 1), 5), _who(), strict=True))

    with steady_load(server, "digits", "stable") as askers:
        for version in range(2, _VERSIONS + 1):
            story.versions.append(version)
            story.moved.append(time.monotonic())
            sync_bench.promote(version)
            agent = _kill(at.get(version), chance, sync_bench, agent, server, story)
            agent.serves({"stable": version})
            story.served.append(time.monotonic())
        story.versions.append(_VERSIONS - 1)
        story.moved.append(time.monotonic())
        sync_bench.registry.roll_back("digits", "stable", origin=ORIGIN)
        agent.serves({"stable": _VERSIONS - 1})
        story.served.append(time.monotonic())

    for asker in askers:
        _check(asker, story)


def _who() -> list[str]:
    return [who for who, times in _KILLS for _ in range(times)]


def _kill(
    who: str | None, chance: random.Random, bench: SyncBench, agent: Agent, server: RunningServer, story: Story
) -> Agent:
    """Kills one of the two at some moment of a promotion, and starts it again; returns the agent that runs then."""
    if who is None:
        return agent
    time.sleep(chance.uniform(0.0, 3.0))  # a promotion takes about so long
    if who == "agent":
        agent.kill()
        time.sleep(chance.uniform(0.0, 1.0))
        return bench.agent(server=server.url)
    began = time.monotonic()
    server.restart()
    story.outages.append((began, time.monotonic()))
    return agent


def _check(asker: Asker, story: Story) -> None:
    unexcused = [answer for answer in asker.failures if not story.excuses(answer)]
    assert not unexcused, f"{asker.name}: {len(unexcused)} failed requests while the server was there: {unexcused[:3]}"
    assert len(asker.answers) > 200, f"{asker.name} asked {len(asker.answers)} times only"
    place = 0
    for answer in asker.answers:
        if answer.version is None:
            continue
        allowed = story.allowed(answer)
        places = [index for index in allowed if story.versions[index] == answer.version and index >= place]
        assert places, (
            f"{asker.name}: version {answer.version} answered at {answer.ended:.2f}, expected one of "
            f"{[story.versions[index] for index in allowed]}, after {story.versions[place]}"
        )
        place = places[0]
    assert place == len(story.versions) - 1, f"{asker.name}: the last answer is of version {story.versions[place]}"
