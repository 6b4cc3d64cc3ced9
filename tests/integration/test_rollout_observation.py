"""What a rollout learns from a real Prometheus, and from one that is gone, slow, cut, or somebody else."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from model_registry.errors import FormatError, InvalidInputError, SlipwayError, StorageError
from model_registry.rollout import prometheus as asking
from model_registry.rollout.http_config import load_http_config
from model_registry.rollout.observation import Observer, Reached, Window
from model_registry.rollout.prometheus import Prometheus
from model_registry.rollout.promql import selector
from model_registry.rollout.samples import Requests
from tests.support.dripping import dripper
from tests.support.fixtures_prometheus import prometheus_program  # noqa: F401 (the fixture below needs its name)
from tests.support.metrics_page import ELSEWHERE, AgentPage, EnvoyPage, GatewayPage, MetricsPages
from tests.support.prometheus_server import PrometheusServer

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("rollout_observation")]

SECONDS = 30.0
VALUES = {"model": "digits", "version": "3", "baseline": "2", "window": "60s"}


@dataclass(frozen=True)
class World:
    """What one Prometheus sees; each test finds it empty, and the same targets there."""

    pages: MetricsPages
    server: PrometheusServer
    gateways: tuple[GatewayPage, GatewayPage]
    envoys: tuple[EnvoyPage, EnvoyPage]
    agents: tuple[AgentPage, AgentPage, AgentPage]
    theirs: GatewayPage

    def observer(self, model: str, **within: str) -> Observer:
        return Observer(Prometheus(self.server.url), model, within=within or {"zone": "a"})

    def scraped(self) -> None:
        self.pages.scraped(self.server)


@pytest.fixture(scope="module")
def targets(prometheus_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:  # noqa: F811
    assert prometheus_program.exists()
    with MetricsPages() as pages, PrometheusServer(pages.config(), tmp_path_factory.mktemp("prometheus")) as server:
        yield World(
            pages,
            server,
            (pages.gateway("gateway-1", zone="a"), pages.gateway("gateway-2", zone="a")),
            (pages.envoy("envoy-1", zone="a"), pages.envoy("envoy-2", zone="a")),
            (
                pages.agent("serving-1", zone="a"),
                pages.agent("serving-2", zone="a"),
                pages.agent("serving-3", zone="a"),
            ),
            pages.gateway("theirs", zone='b"} or up{x="'),
        )
        print(server.tail())


@pytest.fixture
def world(targets: World) -> World:
    for page in (*targets.gateways, *targets.envoys, *targets.agents, targets.theirs):
        page.remove()
        page.down, page.stamped = False, ()
    for agent in targets.agents:
        agent.follows("another", {"stable": 1}, revision=1)
    targets.scraped()
    return targets


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """One of its own for each test, since they share a Prometheus."""
    return f"m-{zlib.crc32(request.node.nodeid.encode())}.v_1"


@pytest.fixture
def observer(world: World, model: str) -> Observer:
    return world.observer(model)


def begin(world: World, observer: Observer) -> float:
    """The beginning of a window, in which every cluster has been scraped."""
    world.scraped()
    start = observer.now()
    clusters = "envoy_cluster_upstream_rq_completed"
    until(lambda: not world.server.query(f"{clusters} and timestamp({clusters}) < {start}"))
    return start


def until(look: Callable[[], Any], expected: Callable[[Any], bool] = bool) -> Any:
    deadline = time.monotonic() + SECONDS
    while not expected(found := look()):
        assert time.monotonic() < deadline, f"expected otherwise within {SECONDS} s: {found}"
        time.sleep(0.05)
    return found


# Weights


def test_a_weight_is_in_force_once_every_gateway_has_it(world: World, observer: Observer, model: str) -> None:
    first, second = world.gateways
    first.in_force(model, weight=25, revision=7)
    second.in_force(model, weight=5, revision=6)
    world.scraped()
    assert observer.weights_in_force(25, 7) == Reached(
        False, False, "gateway-2 has 5 % in force instead of 25 %, of revision 6"
    )
    second.in_force(model, weight=25, revision=8)  # somebody moved another label meanwhile
    world.scraped()
    assert observer.weights_in_force(25, 7) == Reached(True, False, "25 % is in force at gateway-1, gateway-2")
    assert observer.weights_in_force(25, 8) == Reached(
        False, False, "gateway-1 has 25 % in force, but of revision 7 instead of 8"
    )


def test_a_gateway_that_is_down_or_silent_is_not_there_yet(world: World, observer: Observer, model: str) -> None:
    first, second = world.gateways
    for one in world.gateways:
        one.in_force(model, weight=0, revision=7)
    world.scraped()
    assert observer.weights_in_force(0, 7).reached
    first.down = True
    second.remove(model=model)
    world.scraped()
    assert observer.weights_in_force(0, 7) == Reached(
        False, False, "gateway-1 is down; gateway-2 does not tell what it has in force"
    )


def test_only_the_gateways_count_that_are_meant(world: World, model: str) -> None:
    for one in world.gateways:
        one.in_force(model, weight=25, revision=7)
    world.theirs.in_force(model, weight=0, revision=70)
    world.scraped()
    assert world.observer(model).weights_in_force(25, 7).reached
    assert world.observer(model, zone='b"} or up{x="').weights_in_force(0, 70).reached
    assert world.observer(model, job_of="x").weights_in_force(0, 7) == Reached(
        False, False, "Prometheus knows no gateway: expected the job slipway-gateway"
    )
    assert not Observer(Prometheus(world.server.url), model).weights_in_force(25, 7).reached


@pytest.mark.parametrize("name", ["model", "job", "__name__", "a-b", 'x="",y', ""])
def test_a_label_that_cannot_tell_them_apart_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        Observer(Prometheus("http://127.0.0.1:1"), "digits", within={name: "x"})


def test_a_weight_that_nobody_tells_of_any_more_does_not_count(world: World, observer: Observer, model: str) -> None:
    """As in a store that others write to: samples with times of their own get no staleness marker."""
    for one in world.gateways:
        one.in_force(model, weight=25, revision=7)
    now = observer.now()
    world.gateways[1].stamped = tuple(now - 2 * back for back in range(149, -1, -1))
    until(lambda: observer.weights_in_force(25, 7).reached)
    assert until(lambda: observer.weights_in_force(25, 7), lambda found: not found.reached) == Reached(
        False, False, "gateway-2 does not tell what it has in force"
    )


@pytest.mark.parametrize("job", ["slipway-gateway", ELSEWHERE])
def test_a_gateway_that_was_seen_of_late_is_amiss_once_it_is_not_whatever_its_job(
    world: World, model: str, job: str
) -> None:
    observer = world.observer(model, zone="c")
    pages = [world.pages.gateway(f"{name}-{model}", job=job, zone="c") for name in "ab"]
    try:
        for page in pages:
            page.in_force(model, weight=25, revision=7)
        until(lambda: observer.weights_in_force(25, 7).reached)
        pages[1].down = True
        world.scraped()
        assert observer.weights_in_force(25, 7) == Reached(False, False, f"b-{model} is down")
        world.pages.forget(pages.pop())
        world.scraped()
        assert observer.weights_in_force(25, 7) == Reached(
            False, False, f"b-{model} told a weight within the last ten minutes and does not any more"
        )
    finally:
        for page in pages:
            world.pages.forget(page)


def test_other_targets_of_a_job_that_has_a_gateway_are_no_gateways(world: World, model: str) -> None:
    observer = world.observer(model, zone="c")
    pages = [world.pages.gateway(f"{name}-{model}", job=ELSEWHERE, zone="c") for name in "ab"]
    try:
        pages[0].in_force(model, weight=25, revision=7)
        world.scraped()
        assert until(lambda: observer.weights_in_force(25, 7), lambda found: found.reached).words.endswith(f"a-{model}")
    finally:
        for page in pages:
            world.pages.forget(page)


# Servers


def test_a_version_is_served_once_every_server_that_follows_the_label_answers_with_it(
    world: World, observer: Observer, model: str
) -> None:
    assert observer.served("canary", 3, 7) == Reached(
        False, False, "Prometheus knows no server that follows canary: expected the job slipway-sync"
    )
    first, second, _ = world.agents  # the third has no part in this model
    first.follows(model, {"canary": 3}, revision=7)
    second.follows(model, {}, revision=6)
    world.scraped()
    assert observer.served("canary", 3, 7) == Reached(False, False, "serving-2 has read revision 6, not yet 7")
    second.follows(model, {"canary": 3, "stable": 2}, serving={"stable": 2}, revision=7)
    world.scraped()
    assert observer.served("canary", 3, 7) == Reached(
        False, False, "serving-2 answers with nothing as canary instead of version 3"
    )
    second.follows(model, {"canary": 3, "stable": 2}, revision=7)
    world.scraped()
    assert observer.served("canary", 3, 7) == Reached(
        True, False, "version 3 is served as canary at serving-1, serving-2"
    )
    assert observer.served("stable", 2, 7) == Reached(True, False, "version 2 is served as stable at serving-2")
    assert not observer.served("canary", 4, 7).reached


def test_an_agent_that_is_down_or_has_read_nothing_is_waited_for(world: World, observer: Observer, model: str) -> None:
    first, second, third = world.agents
    for one in (first, third):
        one.follows(model, {"canary": 3}, revision=7)
    second.remove()
    first.down = True
    world.scraped()
    assert observer.served("canary", 3, 7) == Reached(
        False, False, "serving-1 is down; serving-2 has not read the registry yet"
    )


@pytest.mark.parametrize("job", ["slipway-sync", ELSEWHERE])
def test_a_server_that_was_seen_of_late_is_amiss_once_it_is_not_whatever_its_job(
    world: World, model: str, job: str
) -> None:
    observer = world.observer(model, zone="c")
    pages = [world.pages.agent(f"{name}-{model}", job=job, zone="c") for name in "ab"]
    try:
        for page in pages:
            page.follows(model, {"canary": 3}, revision=7)
        until(lambda: observer.served("canary", 3, 7).reached)
        world.pages.forget(pages.pop())
        world.scraped()
        assert observer.served("canary", 3, 7) == Reached(
            False, False, f"b-{model} followed canary within the last ten minutes and does not any more"
        )
    finally:
        for page in pages:
            world.pages.forget(page)


def test_a_server_that_left_the_label_and_is_there_yet_is_not_waited_for(
    world: World, observer: Observer, model: str
) -> None:
    first, second, _ = world.agents
    for agent in (first, second):
        agent.follows(model, {"canary": 3}, revision=7)
    world.scraped()
    second.follows(model, {"stable": 2}, revision=7)
    world.scraped()
    assert observer.served("canary", 3, 7) == Reached(True, False, "version 3 is served as canary at serving-1")


def test_a_server_that_gave_the_version_up_has_failed_and_one_that_downloads_again_has_not(
    world: World, observer: Observer, model: str
) -> None:
    agent = world.agents[0]
    agent.follows(model, {"canary": 3, "stable": 2}, serving={"stable": 2}, revision=7)
    agent.set("slipway_sync_versions", 1, model=model, state="FAILED")  # a download
    world.scraped()
    assert observer.served("canary", 3, 7) == Reached(
        False, False, "serving-1 answers with nothing as canary instead of version 3"
    )
    agent.follows(model, {"canary": 3, "stable": 2}, serving={"stable": 2}, gave_up=[3], revision=7)
    world.scraped()
    assert observer.served("canary", 3, 7) == Reached(
        False,
        True,
        "serving-1 answers with nothing as canary instead of version 3, which FAILED to load there: its agent's "
        "/status tells why",
    )
    assert observer.served("stable", 2, 7).reached
    agent.follows(model, {"canary": 3, "stable": 2}, serving={"stable": 2}, revision=7)  # it was asked to try again
    world.scraped()
    assert not observer.served("canary", 3, 7).failed


def test_a_server_where_another_version_of_the_model_failed_has_not_failed(
    world: World, observer: Observer, model: str
) -> None:
    """Neither with what another label names, nor with what this one named before."""
    agent, another = world.agents[:2]
    serving = {"stable": 1}
    for page in (agent, another):
        page.set("slipway_sync_failures_total", 0, model=model, kind="load")
        page.follows(model, {"stable": 2, "canary": 4}, serving=serving, gave_up=[2, 4], revision=6)
        page.has(model, AVAILABLE=1, FAILED=2)
        page.add("slipway_sync_failures_total", 2, model=model, kind="load")
    world.scraped()
    assert observer.served("canary", 4, 6).failed
    assert observer.served("stable", 2, 6).failed
    agent.follows(model, {"stable": 2, "canary": 3}, serving=serving, gave_up=[2], revision=7)
    agent.has(model, AVAILABLE=1, FAILED=1, DOWNLOADING=1)
    another.follows(model, {"stable": 2}, serving=serving, gave_up=[2], revision=7)
    world.scraped()
    assert observer.served("canary", 3, 7) == Reached(
        False, False, "serving-1 answers with nothing as canary instead of version 3"
    )
    assert observer.served("stable", 2, 7).failed
    agent.follows(model, {"stable": 2, "canary": 3}, serving={**serving, "canary": 3}, gave_up=[2], revision=7)
    world.scraped()
    assert observer.served("canary", 3, 7).reached


# Requests


def test_requests_are_counted_over_all_gateways_and_interfaces_of_this_version_alone(
    world: World, observer: Observer, model: str
) -> None:
    first, second = world.envoys
    for envoy in world.envoys:
        envoy.answered(model, "canary", 3, requests=1000, errors=500)  # before the window
        envoy.cluster(model, "canary", 3, api="grpc")
        envoy.cluster(model, "canary", 2)
        envoy.cluster(model, "stable", 3)
    start = begin(world, observer)
    first.answered(model, "canary", 3, requests=100, errors=7, milliseconds=[3, 30])
    first.answered(model, "canary", 3, requests=50, errors=2, milliseconds=3, api="grpc")
    second.answered(model, "canary", 3, requests=10, errors=1, milliseconds=300)
    second.answered(model, "canary", 2, requests=10_000, errors=1)
    second.answered(model, "stable", 3, requests=10_000, errors=1)
    world.scraped()
    end = observer.now()
    found = observer.window("canary", 3, start, end)
    assert (found.requests.total, found.requests.errors, found.left_out) == (160, 10, 0)
    assert found.requests.latency.samples == 160
    assert 2.9 <= found.requests.latency.at(99) <= 3.9  # of 50 + 50 that took 3 ms
    assert 0 < found.covered <= end - start


def test_the_first_errors_of_a_cluster_that_was_there_count(world: World, observer: Observer, model: str) -> None:
    world.envoys[0].cluster(model, "canary", 3)
    start = begin(world, observer)
    world.envoys[0].answered(model, "canary", 3, requests=5, errors=5)
    world.scraped()
    assert observer.window("canary", 3, start, observer.now()).requests.errors == 5


def test_what_a_new_cluster_counted_before_it_was_seen_does_not_count(
    world: World, observer: Observer, model: str
) -> None:
    start = begin(world, observer)
    world.envoys[0].answered(model, "canary", 3, requests=900, errors=900)
    world.scraped()
    world.envoys[0].answered(model, "canary", 3, requests=9)
    world.scraped()
    found = observer.window("canary", 3, start, observer.now()).requests
    assert (found.total, found.errors) == (9, 0)


def test_requests_that_clients_gave_up_are_errors(world: World, observer: Observer, model: str) -> None:
    envoy = world.envoys[0]
    for api in ("rest", "grpc"):
        envoy.cluster(model, "canary", 3, api=api)
    start = begin(world, observer)
    envoy.answered(model, "canary", 3, requests=10, errors=2)
    envoy.given_up(model, "canary", 3, requests=5, timeouts=2)  # which were answered with 504
    envoy.answered(model, "canary", 3, requests=10, api="grpc")
    envoy.given_up(model, "canary", 3, requests=4, api="grpc")
    world.scraped()
    found = observer.window("canary", 3, start, observer.now()).requests
    assert (found.total, found.errors) == (10 + 3 + 10 + 4, 2 + 3 + 4)


def test_an_envoy_that_begins_anew_is_counted_from_zero(world: World, observer: Observer, model: str) -> None:
    envoy = world.envoys[0]
    envoy.answered(model, "canary", 3, requests=1000)
    start = begin(world, observer)
    envoy.remove()
    envoy.answered(model, "canary", 3, requests=40, errors=4)
    world.scraped()
    found = observer.window("canary", 3, start, observer.now()).requests
    assert (found.total, found.errors) == (40, 4)


def test_an_envoy_that_falls_silent_ends_what_is_covered_until_it_is_back(
    world: World, observer: Observer, model: str
) -> None:
    first, second = world.envoys
    for envoy in world.envoys:
        envoy.cluster(model, "canary", 3)
    start = begin(world, observer)
    begin(world, observer)
    second.down = True
    world.scraped()
    covered = observer.window("canary", 3, start, observer.now()).covered
    assert covered
    first.answered(model, "canary", 3, requests=100)
    begin(world, observer)
    assert observer.window("canary", 3, start, observer.now()).covered == covered
    begin(world, observer)
    behind = observer.window("canary", 3, start, observer.now()).requests.behind
    assert [one.instance for one in behind] == ["envoy-2"]
    second.down = False
    world.scraped()
    assert observer.window("canary", 3, start, observer.now()).covered > covered


def test_an_envoy_that_is_added_takes_nothing_from_what_is_covered(
    world: World, observer: Observer, model: str
) -> None:
    first, second = world.envoys
    first.cluster(model, "canary", 3)
    start = begin(world, observer)
    begin(world, observer)
    covered = observer.window("canary", 3, start, observer.now()).covered
    second.cluster(model, "canary", 3)
    world.scraped()
    assert observer.window("canary", 3, start, observer.now()).covered >= covered > 0


def test_requests_while_a_server_of_the_label_loads_any_model_are_left_out(
    world: World, observer: Observer, model: str
) -> None:
    envoy, (ours, theirs, _) = world.envoys[0], world.agents
    ours.follows(model, {"canary": 3}, revision=7)
    theirs.follows(model, {"stable": 2}, revision=7)
    for label, version in (("canary", 3), ("stable", 2)):
        envoy.cluster(model, label, version)
    start = begin(world, observer)
    envoy.answered(model, "canary", 3, requests=10)
    begin(world, observer)
    ours.has("another", LOADING=1)
    world.scraped()
    for label, version in (("canary", 3), ("stable", 2)):
        envoy.answered(model, label, version, requests=100)
    world.scraped()
    ours.has("another", AVAILABLE=1)
    begin(world, observer)
    envoy.answered(model, "canary", 3, requests=1)
    world.scraped()
    end = observer.now()
    found = observer.window("canary", 3, start, end)
    assert found.requests.total == 11
    assert 0 < found.left_out < found.covered
    unmoved = observer.window("stable", 2, start, end)
    assert (unmoved.requests.total, unmoved.left_out) == (100, 0)


def test_no_scrape_is_no_data(observer: Observer) -> None:
    now = observer.now()
    assert observer.window("canary", 3, now - 60, now) == Window(Requests(), 0, 0)
    assert observer.window("canary", 3, now, now - 60) == Window(Requests(), 0, 0)
    assert observer.window("canary", 3, now + 3600, now + 7200) == Window(Requests(), 0, 0)


def test_two_prometheis_that_scraped_the_same_envoy_are_refused(world: World, observer: Observer, model: str) -> None:
    cluster = {"model": model, "label": "canary", "version": "3", "api": "rest"}
    for replica in ("a", "b"):
        world.envoys[0].set("envoy_cluster_upstream_rq_completed", 1, **cluster, replica=replica)
    world.scraped()
    with pytest.raises(FormatError, match="two Prometheis tell of the same"):
        observer.window("canary", 3, observer.now() - 60, observer.now())


@pytest.mark.parametrize(("points", "most"), [(7, 3_000_000), (100_000, 20), (7, 20)])
def test_points_are_the_same_however_many_queries_they_take(
    world: World, model: str, monkeypatch: pytest.MonkeyPatch, points: int, most: int
) -> None:
    for number in range(12):
        world.envoys[0].set("count", number, model=model)
        world.scraped()
    client, selector = Prometheus(world.server.url), f'count{{model="{model}"}}'
    now = client.time()
    (whole,) = client.series(selector, now - 60, now)
    monkeypatch.setattr(asking, "_POINTS", points)
    monkeypatch.setattr(asking, "_MOST_POINTS", most)
    (parts,) = client.series(selector, now - 60, now)
    assert parts.labels == whole.labels
    assert [value for _, value in parts.points] == sorted(value for _, value in parts.points)
    if most > len(whole.points):
        assert parts == whole
    else:
        assert 1 < len(parts.points) <= most + 1
        assert {value for _, value in parts.points} <= {value for _, value in whole.points}
    since = whole.points[3][0]
    (later,) = client.series(selector, since, now)
    assert later.points[0][0] >= since


def test_a_point_where_two_queries_meet_is_told_once(world: World, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, selector = Prometheus(world.server.url), f'count{{model="{model}"}}'
    now = math.floor(client.time())
    world.envoys[0].stamped = tuple(now - back for back in range(60, -1, -1))
    world.envoys[0].set("count", 1, model=model)
    monkeypatch.setattr(asking, "_POINTS", 16)  # so that four queries of 15 s are made
    (found,) = until(lambda: client.series(selector, now - 60, now))
    assert [time for time, _ in found.points] == [*range(now - 60, now + 1)]


# Checks


@pytest.mark.parametrize(
    ("promql", "passed", "words"),
    [
        ("vector(1)", True, "it is 1"),
        ("0", False, "it is 0"),
        ("0 / 0", False, "it is NaN"),
        ("vector(1) > bool 2", False, "it is 0"),
        ("vector(1) > 2", None, "a comparison without `bool`"),
        ("nothing_of_this_name", None, "no such series"),
        ('label_replace(vector($version), "m", "$model-$1", "n", "(.*)")', True, "it is 3 of {m="),
        ("vector(${version} - ${baseline})", True, "it is 1"),
        ("sum_over_time(vector(1)[$window:20s]) > bool 2", True, "it is 1"),
        (
            'label_replace(vector(1), "a", "x", "", "") or label_replace(vector(0), "a", "y", "", "")',
            False,
            "1 of 2 values",
        ),
    ],
)
def test_a_check_says(observer: Observer, promql: str, passed: bool | None, words: str) -> None:
    found = observer.check(promql, VALUES)
    assert (found.passed, words in found.words) == (passed, True), found


@pytest.mark.parametrize(
    ("promql", "why"),
    [
        ("up[5m]", "a range of values"),
        ("'x'", "a string"),
        ("up{", "parse error"),
        ("$modle", "names \\$modle"),
        ("", "refuses ''"),
    ],
)
def test_a_check_that_is_none_is_refused(observer: Observer, promql: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        observer.check(promql, VALUES)


def test_a_query_may_be_longer_than_a_url(observer: Observer) -> None:
    assert observer.check(f'up{{job="{"x" * 200_000}"}} or vector(7)', VALUES).value == 7


def test_no_label_of_ours_reads_more_than_it_names(world: World) -> None:
    world.theirs.in_force("victim", weight=1, revision=1)
    world.scraped()
    client = Prometheus(world.server.url)
    for name in ['x"} or up{job!="', "x\\", 'x\\"', "x\n", "x\t\x00\x7f", "x\u2028é", "{}", ".*", "`'"]:
        assert client.query(selector("slipway_gateway_weight", {"model": name})) == ()
        assert client.query(selector("slipway_gateway_weight", {}, model=[name])) == ()
    assert len(client.query(selector("slipway_gateway_weight", {}, model=["a|b", "victim", "x.y\n"]))) == 1


# Prometheus itself


@contextlib.contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[Any]]]:
    """Answers every question so; gives its URL, and what was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()
        thread.join()


def vector(**more: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}, **more}).encode()


def failure(url: str, timeout: float = 10.0, http_config: Path | None = None) -> SlipwayError:
    with pytest.raises(SlipwayError) as failed:
        Prometheus(url, timeout=timeout, http_config=http_config).query("up")
    return failed.value


def test_nothing_is_reached_until_prometheus_has_had_the_time_to_scrape_all(
    prometheus_program: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Of what a Prometheus has found that begins anew, nothing is known before its first scrape, not even `up`."""
    assert prometheus_program.exists()
    with MetricsPages() as pages:
        pages.gateway("gateway-1").in_force("digits", weight=5, revision=7)
        pages.agent("serving-1").follows("digits", {"canary": 3}, revision=7)
        with PrometheusServer(pages.config("2s"), tmp_path / "prometheus") as server:
            observer = Observer(Prometheus(server.url), "digits")
            counted = 'count_over_time(up{job="%s"}[10m])'
            until(lambda: observer.weights_in_force(5, 7).reached)
            assert server.query(counted % "slipway-gateway")[0].value >= 3
            until(lambda: observer.served("canary", 3, 7).reached)
            assert server.query(counted % "slipway-sync")[0].value >= 3


def test_a_prometheus_that_is_killed_is_waited_for_and_has_its_data_again(
    prometheus_program: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    assert prometheus_program.exists()
    with MetricsPages() as pages, PrometheusServer(pages.config(), tmp_path / "prometheus") as server:
        observer = Observer(Prometheus(server.url), "digits")
        envoy, gateway, gone = pages.envoy("envoy-1"), pages.gateway("gateway-1"), pages.gateway("gateway-2")
        envoy.cluster("digits", "canary", 3)
        gateway.in_force("digits", weight=5, revision=7)
        pages.scraped(server)
        assert not observer.weights_in_force(5, 7).reached
        pages.forget(gone)
        until(lambda: observer.weights_in_force(5, 7).reached)
        start = observer.now()
        until(lambda: observer.window("canary", 3, start, observer.now()).covered)
        server.kill()
        with pytest.raises(StorageError, match="does not answer") as failed:
            observer.now()
        assert failed.value.transient
        envoy.answered("digits", "canary", 3, requests=10, errors=1)
        server.start()
        pages.scraped(server)
        found = observer.window("canary", 3, start, observer.now()).requests
        assert (found.total, found.errors) == (10, 1)


@pytest.mark.parametrize(
    ("status", "body", "kind", "transient", "words"),
    [
        (503, b"Service Unavailable", StorageError, True, "answers 503: Service Unavailable"),
        (503, b'{"status":"error","errorType":"timeout","error":"took too long"}', StorageError, True, "took too long"),
        (429, b"slow down", StorageError, True, "answers 429"),
        (401, b"", StorageError, False, "promtool --http.config.file"),
        (302, b"", StorageError, False, "answers 302"),
        (404, b"<html>", StorageError, False, "with its path where it has a prefix"),
        (400, b"plain HTTP to an HTTPS port", StorageError, False, "plain HTTP"),
        (400, b'{"status":"error","errorType":"bad_data","error":"no"}', InvalidInputError, None, "refuses 'up': no"),
        (422, b'{"status":"error","errorType":"execution","error":"no"}', StorageError, True, "fails at 'up': no"),
        (200, b"<html>hello</html>", FormatError, None, "does not answer as Prometheus does"),
        (200, b"", FormatError, None, "does not answer as Prometheus does"),
        (200, b"[" * 100_000, FormatError, None, "does not answer as Prometheus does"),
        (200, b'{"status":"success"}', FormatError, None, "data"),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}',
         FormatError, None, "expected a number"),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}',
         FormatError, None, "value"),
        (200, vector(warnings=["store 2 is gone"]), StorageError, True, "in part: store 2 is gone"),
        (200, vector(isPartial=True), StorageError, True, "in part: a part is missing"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_says_what_it_is(
    status: int, body: bytes, kind: type[SlipwayError], transient: bool | None, words: str
) -> None:
    with answering(status, body, Location="http://127.0.0.1:1/") as (url, _):
        failed = failure(url)
    assert (type(failed), getattr(failed, "transient", None)) == (kind, transient)
    assert words in str(failed)
    assert len(str(failed)) < 1000


def test_a_check_that_cannot_be_executed_is_its_authors_fault() -> None:
    body = b'{"status":"error","errorType":"execution","error":"many-to-many matching"}'
    refused = pytest.raises(InvalidInputError, match="refuses 'up': many-to-many")
    with answering(422, body) as (url, _), refused:
        Observer(Prometheus(url), "digits").check("up", VALUES)


def test_notes_on_the_expression_take_nothing_from_an_answer() -> None:
    with answering(200, vector(warnings=["PromQL info: metric might not be a counter"])) as (url, asked):
        assert Prometheus(f"{url}/prefix/").query("up", at=12.3456) == ()
    path, _, form = asked[0]
    assert path == "/prefix/api/v1/query"
    assert b"query=up&time=12.346&partial_response=false" in form


def test_an_answer_that_drips_or_never_ends_is_left() -> None:
    for opening, piece in [(b"", b"H"), (b"HTTP/1.1 200 OK\r\n\r\n{", b" ")]:
        with dripper(opening, piece) as drip:
            failed = failure(drip.url, timeout=0.5)
            drip.assert_left()
        assert isinstance(failed, StorageError) and failed.transient
        assert "no whole answer within 0.5 s" in str(failed)


def test_an_answer_that_is_huge_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_ANSWER_BYTES", 10_000)
    with answering(200, b" " * 20_000) as (url, _):
        assert isinstance(failed := failure(url), FormatError) and "more than 10000 bytes" in str(failed)


def test_a_closed_port_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    failed = failure(f"http://127.0.0.1:{port}")
    assert isinstance(failed, StorageError) and failed.transient


@pytest.mark.parametrize(
    "url", ["localhost:9090", "http://ann:hunter2@a:9090", "http://a:9090/?x=1", "file:///etc/passwd"]
)
def test_what_is_no_url_of_a_prometheus_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="URL of a Prometheus") as refused:
        Prometheus(url)
    assert "hunter2" not in str(refused.value)


def test_a_token_is_sent_read_anew_and_never_shown(tmp_path: Path) -> None:
    token, config = tmp_path / "token", tmp_path / "http.yaml"
    token.write_text("hunter1\n")
    config.write_text("authorization: {credentials_file: token}")
    with answering(403, b"who is Bearer hunter2?") as (url, asked):
        client = Prometheus(url, http_config=config)
        token.write_text("hunter2\n")
        with pytest.raises(StorageError) as refused:
            client.time()
    assert asked[0][1]["Authorization"] == "Bearer hunter2"
    assert "hunter2" not in str(refused.value)


SECRET = 'q"<%+' + "hunter2" * 270
CREDENTIALS = {
    "authorization": f"authorization: {{credentials: {json.dumps(SECRET)}}}",
    "basic_auth": f"basic_auth: {{username: ann, password: {json.dumps(SECRET)}}}",
}


@pytest.mark.parametrize("login", CREDENTIALS)
@pytest.mark.parametrize("before", [0, 260, 290, 299])
@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (401, None),
        (503, None),
        (400, "bad_data"),
        (422, "execution"),
        (503, "timeout"),
        (200, "warning"),
        (200, "kind"),
    ],
)
def test_what_an_answer_quotes_of_a_login_is_not_shown(
    tmp_path: Path, login: str, before: int, status: int, refusal: str | None
) -> None:
    (tmp_path / "http.yaml").write_text(CREDENTIALS[login])
    header = load_http_config(tmp_path / "http.yaml").login().headers["Authorization"]
    for quotes in (header, header.partition(" ")[2], SECRET):
        said = "x" * before + f" invalid token '{quotes}' of you"
        body = {
            None: said.encode(),
            "warning": vector(warnings=[said]),
            "kind": json.dumps({"status": "success", "data": {"resultType": quotes}}).encode(),
        }.get(refusal, json.dumps({"status": "error", "errorType": refusal, "error": said}).encode())
        with answering(status, body) as (url, _):
            failed = failure(url, http_config=tmp_path / "http.yaml")
        shown = str(failed)
        assert not any(part in shown for part in ("hunter", quotes[:6], quotes[-6:])), shown
        assert len(shown) < 1000
