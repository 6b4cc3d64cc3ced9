"""A gateway's agent between a registry and a real Envoy: what is wanted comes into force, whoever is away or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import urllib.error
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command import slipway
from tests.support.gateway_bench import GatewayBench, GatewayProcess
from tests.support.gateway_crasher import Order, run_gateway_crasher
from tests.support.sync_bench import WITHIN

STABLE = (200, "/v1/models/digits/labels/stable:predict")
CANARY = (200, "/v1/models/digits/labels/canary:predict")


def measured(agent: GatewayProcess, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one of its metrics, by the values of their labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(agent.ask("/metrics").decode())
        for sample in family.samples
        if sample.name == name
    }


@pytest.fixture
def running(gateway_bench: GatewayBench) -> tuple[GatewayBench, GatewayProcess]:
    """Version 1 is stable; Envoy and its agent run."""
    gateway_bench.sync.stable()
    gateway_bench.envoy.start()
    agent = gateway_bench.agent()
    agent.shares(0, 1)
    return gateway_bench, agent


@pytest.fixture
def sharing(running: tuple[GatewayBench, GatewayProcess]) -> tuple[GatewayBench, GatewayProcess]:
    """A quarter of the requests goes to version 2."""
    bench, agent = running
    bench.begin(bench.sync.publish())
    agent.shares(25, bench.shift(1))
    return bench, agent


@contextmanager
def asked_all_along(bench: GatewayBench) -> Iterator[Counter[tuple[int, str]]]:
    """Sends requests one after another, and counts what they are answered with."""
    answers, stop = Counter[tuple[int, str]](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answers[bench.get()] += 1
            except OSError as error:
                answers[0, repr(error)] += 1
            stop.wait(0.002)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def test_a_weight_in_the_registry_comes_into_force_and_is_told(running: tuple[GatewayBench, GatewayProcess]) -> None:
    bench, agent = running
    began = bench.begin(bench.sync.publish())
    agent.shares(0, began)
    shifted = bench.shift(1)
    model = agent.shares(25, shifted)

    assert (model.stable, model.canary, model.wanted_weight, model.revision) == (1, 2, 25, shifted)
    assert measured(agent, "slipway_gateway_weight") == {("digits",): 25}
    assert measured(agent, "slipway_gateway_wanted_weight") == {("digits",): 25}
    assert measured(agent, "slipway_gateway_revision") == {("digits",): shifted}
    assert measured(agent, "slipway_gateway_lag_seconds") == {("digits",): 0}
    assert measured(agent, "slipway_gateway_envoy_up") == {(): 1}
    assert agent.report().well and not agent.report().obstacles()
    answers = Counter(bench.get() for _ in range(200))
    assert answers.keys() == {STABLE, CANARY}
    assert 15 < answers[CANARY] < 90

    agent.shares(0, bench.withdraw())
    assert {bench.get() for _ in range(50)} == {STABLE}


def test_it_answers_as_agents_do(running: tuple[GatewayBench, GatewayProcess]) -> None:
    _, agent = running

    assert (agent.ask("/healthz"), agent.ask("/readyz")) == (b"ok\n", b"ok\n")
    assert json.loads(agent.ask("/status"))["models"]["digits"]["stable"] == 1
    with pytest.raises(urllib.error.HTTPError) as refused:
        agent.retry(1)
    with refused.value as answer:
        assert (answer.code, answer.read().decode().partition("; ")[2]) == (
            404,
            "expected one of /healthz /readyz /status /metrics\n",
        )
    assert agent.end() == 0
    assert "ended by SIGTERM" in agent.log


def test_no_request_is_lost_while_a_label_moves(running: tuple[GatewayBench, GatewayProcess]) -> None:
    bench, agent = running
    with asked_all_along(bench) as answers:
        for version in (2, 3, 4):
            before = answers.total()
            bench.sync.stable()
            agent.shares(0, version)
            assert agent.model().stable == version
            agent.until(lambda before=before: answers.total() > before + 20, "there were requests")

    assert set(answers) == {STABLE}
    agent.until(lambda: not any(name.startswith("digits:3@") for name in bench.clusters()), "the old clusters leave")
    assert any(name.startswith("digits:4@stable/") for name in bench.clusters())


def test_the_old_clusters_stay_until_the_new_routes_are_in_force_and_have_drained(
    gateway_bench: GatewayBench,
) -> None:
    bench = gateway_bench
    bench.sync.stable()
    bench.envoy.start()
    agent = bench.agent("--drain=600")
    agent.shares(0, 1)

    bench.sync.stable()
    agent.shares(0, 2)
    bench.sync.stable()
    agent.shares(0, 3)

    assert {f"digits:{version}@stable/rest" for version in (1, 2, 3)} <= bench.clusters()
    agent.kill()
    bench.agent("--drain=0").until(lambda: "digits:1@stable/rest" not in bench.clusters(), "the next agent ends it")
    assert "digits:2@stable/rest" not in bench.clusters()
    assert "digits:3@stable/rest" in bench.clusters()


def test_what_says_the_same_is_not_written_again(running: tuple[GatewayBench, GatewayProcess]) -> None:
    bench, agent = running
    files = [bench.directory / name for name in ("clusters.json", "routes.json", ".slipway/gateway.json")]
    before = [path.stat() for path in files]
    bench.sync.promote(1, "other")  # no fleet follows that label
    agent.shares(0, 2)
    between = [path.stat() for path in files]
    bench.sync.stable("faces")
    agent.shares(0, 1, "faces")
    after = [path.stat() for path in files]

    written = [[one.st_mtime_ns for one in found] for found in (before, between, after)]
    changed = [[old != new for old, new in zip(*pair, strict=True)] for pair in pairwise(written)]
    assert changed == [[False, True, True], [True, True, True]]


def test_the_registry_is_taken_away_and_brought_back(sharing: tuple[GatewayBench, GatewayProcess]) -> None:
    bench, agent = sharing
    registry = bench.sync.folder / "registry"
    registry.rename(bench.sync.folder / "away")
    report = agent.until(lambda: (found := agent.report()).registry_problem and found, "it is missed")

    assert report.models["digits"].weight == 25
    assert report.settled and not report.well
    assert "the registry cannot be read" in report.obstacles()[0]
    assert agent.ask("/readyz").startswith(b"ok; the registry cannot be read")
    assert Counter(bench.get() for _ in range(100)).keys() == {STABLE, CANARY}
    age = measured(agent, "slipway_gateway_registry_age_seconds")[()]
    agent.until(lambda: measured(agent, "slipway_gateway_registry_age_seconds")[()] > age, "the age goes on")

    (bench.sync.folder / "away").rename(registry)
    agent.shares(0, bench.withdraw())
    assert agent.report().well


def test_the_next_agent_and_the_next_envoy_go_on_while_the_registry_is_away(
    sharing: tuple[GatewayBench, GatewayProcess],
) -> None:
    bench, agent = sharing
    revision = agent.model().revision
    (bench.sync.folder / "registry").rename(bench.sync.folder / "away")
    agent.kill()
    bench.envoy.kill()
    files = [(bench.directory / name).read_bytes() for name in ("clusters.json", "routes.json")]

    bench.envoy.start()
    again = bench.agent()
    model = again.shares(25, revision)

    assert model.wanted_revision == revision
    assert Counter(bench.get() for _ in range(100)).keys() == {STABLE, CANARY}
    assert again.report().registry_age is None
    assert again.ask("/readyz").startswith(b"ok; the registry cannot be read")
    assert [(bench.directory / name).read_bytes() for name in ("clusters.json", "routes.json")] == files


def test_an_envoy_that_is_down_is_told_and_comes_back_with_the_same_weights(
    sharing: tuple[GatewayBench, GatewayProcess],
) -> None:
    bench, agent = sharing
    bench.envoy.kill()
    report = agent.until(lambda: not (found := agent.report()).envoy_reachable and found, "it is missed")

    assert not report.settled
    assert "it does not answer" in report.obstacles()[0]
    assert measured(agent, "slipway_gateway_envoy_up") == {(): 0}
    assert measured(agent, "slipway_gateway_weight") == {}
    assert measured(agent, "slipway_gateway_wanted_weight") == {("digits",): 25}
    agent.until(lambda: measured(agent, "slipway_gateway_lag_seconds")["digits",] > 0, "it lags")
    # A connection that breaks as it is killed is silence, which is no reason yet; one that is refused is.
    agent.until(lambda: not agent.report().ready, "it counts as gone")
    with pytest.raises(urllib.error.HTTPError) as unready:
        agent.ask("/readyz")
    with unready.value as answer:
        assert (answer.code, b"it does not answer" in answer.read()) == (503, True)
    assert agent.ask("/healthz") == b"ok\n"

    weight = bench.shift(2)  # which Envoy is to find as it starts
    agent.until(lambda: agent.model().wanted_revision == weight, "the registry is read meanwhile")
    bench.envoy.start()
    agent.shares(100, weight)


def test_a_state_that_cannot_be_read_leaves_the_models_routes_and_the_others_go_on(
    sharing: tuple[GatewayBench, GatewayProcess],
) -> None:
    bench, agent = sharing
    state = bench.sync.folder / "registry" / "registry" / "digits" / "state.json"
    good = state.read_bytes()
    state.write_bytes(good.replace(b'"weight": 25', b'"weight": 2500'))
    bench.sync.stable("faces")
    agent.shares(0, 1, "faces")
    model = agent.until(lambda: (found := agent.model()).problem and found, "it is told")

    assert "its state cannot be read, its routes stay" in model.problem
    assert (model.weight, model.stable, model.canary) == (25, 1, 2)
    assert Counter(bench.get() for _ in range(100)).keys() == {STABLE, CANARY}
    agent.kill()
    agent = bench.agent()
    agent.until(lambda: agent.model().problem and agent.model().weight == 25, "the next agent leaves it, too")

    state.write_bytes(good)
    agent.shares(25)


def test_only_a_state_that_was_read_takes_a_models_routes_away(running: tuple[GatewayBench, GatewayProcess]) -> None:
    bench, agent = running
    bench.sync.publish("faces")
    documents = bench.sync.folder / "registry" / "registry" / "digits"
    documents.rename(bench.sync.folder / "away")
    agent.until(lambda: "does not list it any more" in agent.model().problem, "it is missed")
    assert bench.get() == STABLE
    (bench.sync.folder / "away").rename(documents)
    agent.shares(0, 1)

    (documents / "state.json").rename(bench.sync.folder / "away")
    agent.until(lambda: "went backwards" in agent.model().problem, "its state is missed")
    assert bench.get() == STABLE
    (bench.sync.folder / "away").rename(documents / "state.json")
    agent.shares(0, 1)

    bench.sync.registry.unlabel("digits", "stable", origin=bench.state().last_transition.origin)  # type: ignore[union-attr]
    agent.until(lambda: "digits" not in agent.report().models, "it leaves")
    assert bench.get()[0] == 404
    agent.until(lambda: not bench.clusters(), "so do its clusters")


def test_a_model_that_the_fleet_file_does_not_name_any_more_leaves_without_a_word(
    running: tuple[GatewayBench, GatewayProcess],
) -> None:
    bench, agent = running
    bench.sync.stable("faces")
    agent.shares(0, 1, "faces")
    agent.kill()
    fleets = bench.envoy.file.fleets
    only = {label: fleet.model_copy(update={"models": ("faces",)}) for label, fleet in fleets.items()}
    bench.envoy.file = bench.envoy.file.model_copy(update={"fleets": only})
    agent = bench.agent()
    agent.shares(0, 1, "faces")

    agent.until(lambda: bench.get()[0] == 404 and agent.report().models.keys() == {"faces"}, "it leaves")
    agent.until(lambda: agent.report().well, "nothing is wrong with that")
    assert bench.get("/v1/models/faces:predict")[0] == 200


def test_a_second_agent_is_refused(running: tuple[GatewayBench, GatewayProcess]) -> None:
    bench, agent = running
    second = slipway(*bench.command("--json"), folder=bench.sync.folder)

    assert (second.code, second.error["class"]) == (4, "ConflictError")
    assert f"another agent fills {bench.directory}" in second.error["message"]
    agent.shares(0, 1)


def test_once_writes_what_an_envoy_starts_with(gateway_bench: GatewayBench) -> None:
    bench = gateway_bench
    bench.remove_files()
    unreadable = bench.fleet_file()  # no directory
    away = slipway(*bench.command("--once", "--json", f"--registry={unreadable}"), folder=bench.sync.folder)
    bench.sync.stable()
    bench.begin(bench.sync.publish())
    bench.shift(0)
    done = bench.once("--json")

    assert (away.code, away.error["class"]) == (1, "StorageError")
    assert "nothing can be routed" in away.error["message"]
    assert (done.code, done.document["models"]["digits"]["wanted_weight"]) == (0, 5)
    bench.envoy.start()
    assert {bench.get() for _ in range(100)} == {STABLE}  # nobody knows yet whether Envoy finds canary's servers

    beside = bench.once("--json", f"--envoy={bench.envoy.admin_url}")
    assert (beside.code, beside.document["models"]["digits"]["weight"]) == (0, 5)
    assert {bench.get() for _ in range(300)} == {STABLE, CANARY}
    bench.shift(2)
    beside = bench.once("--json", f"--envoy={bench.envoy.admin_url}")
    assert (beside.code, beside.document["models"]["digits"]["weight"]) == (0, 100)
    assert {bench.get() for _ in range(20)} == {CANARY}

    (bench.sync.folder / "registry").rename(bench.sync.folder / "away")
    bench.envoy.kill()
    assert bench.once().code == 0  # what was routed before


def test_an_empty_registry_is_enough_for_an_envoy_to_start(gateway_bench: GatewayBench) -> None:
    bench = gateway_bench
    bench.remove_files()
    bench.sync.publish()
    done = bench.once()

    assert (done.code, "without a route: no model in" in done.stderr) == (0, True)
    bench.envoy.start()
    assert bench.get()[0] == 404
    agent = bench.agent()
    bench.sync.promote(1)
    agent.shares(0, 1)


@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_an_agent_that_is_killed_at_a_write_loses_no_request_and_the_next_one_goes_on(
    gateway_bench: GatewayBench, everywhere: bool
) -> None:
    """Killed before and after each file that is moved into place; with `make soak` before every change of the disk."""
    bench = gateway_bench
    bench.sync.stable()
    bench.envoy.start()
    fleet, registry = str(bench.fleet_file()), bench.sync.registry.store.uri

    def order(version: int, at: int | None) -> Order:
        return Order(str(bench.directory), fleet, registry, version, f"digits:{version - 1}@stable", at)

    with run_gateway_crasher() as crasher:
        assert crasher.send(order(1, None)).lived
        bench.sync.stable()
        points = crasher.send(order(2, None)).points
        renames = [at for at, point in enumerate(points) if "rename" in point]
        assert len(renames) >= 5, points  # clusters, memory, routes; and when it has drained memory, clusters
        deadly = range(len(points)) if everywhere else sorted({*renames, *(at + 1 for at in renames[:-1])})
        with asked_all_along(bench) as answers:
            for at in deadly:
                version = bench.sync.stable()
                died = crasher.send(order(version, at))
                assert died.signal == signal.SIGKILL or at > renames[-1], (at, died)
                version = bench.sync.stable()  # so that routes in force may be of a state that nobody reads any more
                lived = crasher.send(order(version, None))
                assert lived.lived, (at, died.points, lived)
                assert set(answers) <= {STABLE}, (at, died.points, answers)
                assert not [*bench.directory.glob("*.tmp"), *bench.directory.glob(".slipway/*.tmp")]

    assert answers[STABLE] > len(deadly)


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    subprocess.run(["mount", *options, str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


only_root_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@only_root_mounts
def test_a_full_disk_is_told_and_a_weight_comes_once_there_is_room(gateway_bench: GatewayBench) -> None:
    bench = gateway_bench
    kept = {path.name: path.read_bytes() for path in bench.directory.iterdir() if path.is_file()}
    with mounted(bench.directory, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        for name, data in kept.items():
            (bench.directory / name).write_bytes(data)
        bench.sync.stable()
        bench.envoy.start()
        agent = bench.agent()
        agent.shares(0, 1)
        with (bench.directory / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))
        revision = bench.begin(bench.sync.publish())
        report = agent.until(lambda: (found := agent.report()).disk_problem and found, "it is told")

        assert "no space is left there" in report.disk_problem
        assert "the directory cannot be kept up" in report.obstacles()[0]
        assert not report.settled
        assert (report.models["digits"].wanted_revision, report.models["digits"].revision) == (revision, 1)
        assert bench.get() == STABLE
        assert measured(agent, "slipway_gateway_failures_total")["disk",] >= 1

        (bench.directory / "filler").unlink()
        agent.shares(0, revision)
        assert not agent.report().disk_problem
        agent.end()
        bench.envoy.kill()


@only_root_mounts
def test_a_directory_that_cannot_be_written_is_told(running: tuple[GatewayBench, GatewayProcess]) -> None:
    bench, agent = running
    with mounted(bench.directory, "--bind", str(bench.directory)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(bench.directory)], check=True)
        bench.sync.stable()
        agent.until(lambda: "mounted read-only" in agent.report().disk_problem, "it is told")
        refused = slipway(*bench.command("--json"), folder=bench.sync.folder)
        assert (refused.code, refused.error["class"]) == (1, "StorageError")
        assert bench.get() == STABLE
    agent.shares(0, 2)


def test_files_that_somebody_changed_are_put_back(running: tuple[GatewayBench, GatewayProcess]) -> None:
    bench, agent = running
    routes = bench.directory / "routes.json"
    good = routes.read_bytes()

    routes.write_bytes(b"{}")
    agent.until(lambda: routes.read_bytes() == good, "it is put back")

    assert f"{routes} was changed by somebody else" in agent.log


def test_it_ends_within_a_moment_while_envoy_and_the_registry_are_away(gateway_bench: GatewayBench) -> None:
    bench = gateway_bench
    bench.sync.stable()
    agent = bench.agent()
    agent.until(lambda: agent.model().stable, "it is read")
    (bench.sync.folder / "registry").rename(bench.sync.folder / "away")
    agent.until(lambda: agent.report().registry_problem, "it is missed")

    agent.process.send_signal(signal.SIGINT)

    assert agent.process.wait(WITHIN) == 0
