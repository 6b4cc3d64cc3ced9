"""What a gateway's agent makes of a store that hangs, an Envoy that is deaf, a lost memory: a look at a time."""

from __future__ import annotations

import http.server
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model_registry.registry import Registry
from model_registry.serving.fleet import FleetFile
from model_registry.serving.gateway import envoy_watch
from model_registry.serving.gateway.gateway_agent import GatewayAgent
from model_registry.serving.gateway.gateway_metrics import GatewayMetrics
from model_registry.serving.gateway.gateway_report import GatewayReport
from model_registry.serving.gateway.gateway_settings import GatewaySettings
from model_registry.storage import ObjectStore, StoredObject
from tests.support.dripping import dripper
from tests.support.failing_stores import Front
from tests.support.gateway_bench import GatewayBench
from tests.support.sync_bench import WITHIN


class HangingStore(Front):
    """Answers once it may."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.answers = threading.Event()
        self.answers.set()

    def get(self, key: str) -> StoredObject:
        assert self.answers.wait(WITHIN)
        return self._store.get(key)


@contextmanager
def started(
    bench: GatewayBench,
    registry: Registry | None = None,
    clock: Callable[[], float] = time.monotonic,
    **options: object,
) -> Iterator[GatewayAgent]:
    """An agent in this process."""
    settings = GatewaySettings(bench.directory, bench.envoy.file, **{"interval": 0.01, "drain": 0.0} | options)  # type: ignore[arg-type]
    agent = GatewayAgent(settings, registry or bench.sync.registry, metrics=GatewayMetrics(), clock=clock)
    try:
        yield agent
    finally:
        deadline = time.monotonic() + WITHIN
        while not agent.close():  # a look at the registry may be under way
            assert time.monotonic() < deadline
            time.sleep(0.01)


def until(agent: GatewayAgent, reached: Callable[[GatewayReport], object]) -> GatewayReport:
    """Looks until a report is as it should be."""
    deadline = time.monotonic() + WITHIN
    while True:
        agent.tick()
        if reached(report := agent.report()):
            return report
        assert time.monotonic() < deadline, report
        time.sleep(0.01)


@pytest.fixture
def bench(gateway_bench: GatewayBench) -> GatewayBench:
    gateway_bench.sync.stable()
    gateway_bench.envoy.start()
    return gateway_bench


def test_a_store_that_hangs_stops_nothing(bench: GatewayBench) -> None:
    store = HangingStore(bench.sync.registry.store)
    with started(bench, Registry(store)) as agent:  # type: ignore[arg-type]
        until(agent, lambda report: report.well)
        store.answers.clear()
        routes = bench.directory / "routes.json"
        good = routes.read_bytes()
        try:
            for _ in range(3):  # the look under way, and after it
                routes.write_bytes(b"{}")
                until(agent, lambda _: routes.read_bytes() == good)
            report = until(agent, lambda report: (report.registry_age or 0) > 0.05)
            assert (report.envoy_reachable, report.models["digits"].weight) == (True, 0)
            assert agent.healthy() and agent.ready()
        finally:
            store.answers.set()
        until(agent, lambda report: (report.registry_age or 1) < 0.05)


def test_the_seconds_of_a_drain_begin_once_the_new_routes_are_in_force(bench: GatewayBench) -> None:
    later = 0.0
    with started(bench, clock=lambda: time.monotonic() + later, drain=1000.0) as agent:
        until(agent, lambda report: report.well)
        later += 1500  # for so long the first routes are in force
        bench.sync.stable()
        until(agent, lambda report: report.well and report.models["digits"].revision == 2)
        for _ in range(3):
            agent.tick()
        assert "digits:1@stable/rest" in bench.clusters()
        later += 1500
        until(agent, lambda _: "digits:1@stable/rest" not in bench.clusters())


@contextmanager
def deaf(bench: GatewayBench) -> Iterator[None]:
    """Envoy goes on reading the files of a directory that is none of the agent's any more."""
    elsewhere = bench.sync.folder / "elsewhere"
    bench.directory.rename(elsewhere)
    bench.directory.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(bench.directory)
        elsewhere.rename(bench.directory)


def test_routes_wait_for_clusters_that_envoy_does_not_take_up_and_it_is_told(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envoy_watch, "_SLOW", 0.2)
    with started(bench) as agent:
        until(agent, lambda report: report.well)
    bench.sync.stable()
    with deaf(bench), started(bench) as agent:
        report = until(agent, lambda report: report.models.get("digits") and report.models["digits"].problem)

        assert "Envoy does not take up the clusters of revision 2" in report.models["digits"].problem
        assert f"is {bench.directory} what its bootstrap names?" in report.models["digits"].problem
        assert "digits" not in (bench.directory / "routes.json").read_text()
        assert "digits:2@stable/rest" in (bench.directory / "clusters.json").read_text()
        assert (report.models["digits"].revision, report.settled) == (1, False)


def test_envoy_is_blamed_only_once_it_had_its_time_with_clusters_that_were_written(bench: GatewayBench) -> None:
    later = 0.0
    with started(bench) as agent:
        until(agent, lambda report: report.well)
    bench.sync.stable()
    with deaf(bench), started(bench, clock=lambda: time.monotonic() + later) as agent:
        clusters = bench.directory / "clusters.json"
        clusters.symlink_to(bench.sync.folder / "nothing")  # through which nothing is written
        for _ in range(3):
            report = until(agent, lambda report: report.disk_problem and report.envoy_reachable)
            assert "symbolic link" in report.disk_problem
            assert report.models["digits"].problem == ""
            assert not any("Envoy" in obstacle for obstacle in report.obstacles())
            later += 2 * envoy_watch._SLOW
        clusters.unlink()
        for _ in range(2):  # the moment of writing, and soon after
            report = until(agent, lambda report: report.envoy_reachable)
            assert (report.disk_problem, report.models["digits"].problem) == ("", "")
            assert clusters.exists()
        later += 2 * envoy_watch._SLOW
        report = until(agent, lambda report: report.models["digits"].problem)
        assert "Envoy does not take up the clusters of revision 2" in report.models["digits"].problem


def without_address(file: FleetFile) -> FleetFile:
    """The same, but that the name of canary's server has no address."""
    nowhere = FleetFile.model_validate({"fleets": {"canary": {"servers": [{"host": "canary.invalid"}]}}})
    return file.model_copy(update={"fleets": file.fleets | nowhere.fleets})


def test_a_canary_gets_its_first_requests_only_once_envoy_knows_one_of_its_servers(bench: GatewayBench) -> None:
    """As in Kubernetes, where the name of a fleet whose pods are not ready yet has no address."""
    known, later = bench.envoy.file, 0.0
    bench.envoy.file = without_address(known)
    with started(bench, clock=lambda: time.monotonic() + later) as agent:
        until(agent, lambda report: report.well)
        began = bench.begin(bench.sync.publish())
        until(agent, lambda report: report.well and report.models["digits"].revision == began)
        shifted = bench.shift(2)  # to 100 %
        until(agent, lambda report: report.models["digits"].revision == shifted)
        for _ in range(20):
            agent.tick()
        model = agent.report().models["digits"]
        assert (model.revision, model.weight, model.wanted_weight, model.problem) == (shifted, 0, 100, "")
        assert agent.ready()
        assert {bench.get() for _ in range(20)} == {(200, "/v1/models/digits/labels/stable:predict")}

        later += 2 * envoy_watch._UNKNOWN
        model = until(agent, lambda report: report.models["digits"].problem).models["digits"]
        assert (
            "Envoy knows no server of digits:2, which gets no requests: expected an address of canary.inv"
            in model.problem
        )

        bench.envoy.kill()
        until(agent, lambda report: not report.envoy_reachable)
        until(agent, lambda _: not agent.ready())
        bench.envoy.start()  # whoever knows nothing of a server gives it no requests either
        until(agent, lambda report: report.models["digits"].revision == shifted)
        for _ in range(20):
            agent.tick()
        assert (agent.report().models["digits"].weight, bench.get()[0]) == (0, 200)

    bench.envoy.file = known
    with started(bench) as agent:  # what has requests is not taken out again
        until(agent, lambda report: report.well and report.models["digits"].weight == 100)
    bench.envoy.file = without_address(known)
    (bench.directory / ".slipway" / "gateway.json").unlink()
    with started(bench) as agent:  # whoever remembers no requests of a canary takes no route away for it
        model = until(agent, lambda report: report.models["digits"].weight == 0).models["digits"]
        assert (model.revision, agent.ready()) == (shifted, True)
        assert {bench.get() for _ in range(20)} == {(200, "/v1/models/digits/labels/stable:predict")}
        withdrawn = bench.withdraw()  # and is never kept from going back
        until(agent, lambda report: report.well and report.models["digits"].revision == withdrawn)
        assert bench.get()[0] == 200


def test_a_gateway_that_begins_during_a_rollout_waits_for_an_address_of_the_canary_too(bench: GatewayBench) -> None:
    bench.envoy.kill()
    known = bench.envoy.file
    bench.envoy.file = without_address(known)
    bench.begin(bench.sync.publish())
    shifted = bench.shift(2)  # to 100 %
    with started(bench) as agent:
        agent.prepare()
        bench.envoy.start()
        model = until(agent, lambda report: report.models["digits"].revision == shifted).models["digits"]
        for _ in range(20):
            agent.tick()
        assert (model.weight, bench.get()[0], agent.ready()) == (0, 200, True)
    bench.envoy.file = known
    with started(bench) as agent:
        until(agent, lambda report: report.well and report.models["digits"].weight == 100)


def test_without_its_memory_it_leaves_routes_alone_until_every_state_was_read(bench: GatewayBench) -> None:
    bench.sync.stable("faces")
    with started(bench) as agent:
        until(agent, lambda report: report.well)
    files = [bench.directory / name for name in ("clusters.json", "routes.json")]
    before = [path.read_bytes() for path in files]
    (bench.directory / ".slipway" / "gateway.json").unlink()
    state = bench.sync.folder / "registry" / "registry" / "faces" / "state.json"
    good = state.read_bytes()
    state.write_bytes(b"{}")
    bench.sync.stable()

    later = 0.0
    with started(bench, clock=lambda: time.monotonic() + later) as agent:
        report = until(agent, lambda report: report.models.get("faces") and report.models["faces"].problem)
        until(agent, lambda report: report.models["digits"].wanted_revision == 2)
        later += 2 * envoy_watch._SLOW
        assert until(agent, lambda report: report.envoy_reachable).models["digits"].problem == ""  # Envoy was not asked
        assert "what the agent remembers of it is not" in report.disk_problem
        assert [path.read_bytes() for path in files] == before
        state.write_bytes(good)
        report = until(agent, lambda report: report.well)
    assert (report.models["digits"].revision, report.models["faces"].revision) == (2, 1)


def test_without_its_memory_an_empty_registry_takes_no_route_away(bench: GatewayBench) -> None:
    with started(bench) as agent:
        until(agent, lambda report: report.well)
    files = [bench.directory / name for name in ("clusters.json", "routes.json")]
    before = [path.read_bytes() for path in files]
    (bench.directory / ".slipway" / "gateway.json").unlink()
    documents = bench.sync.folder / "registry" / "registry"  # as it is where a disk is not mounted
    documents.rename(bench.sync.folder / "away")
    documents.mkdir()

    with started(bench) as agent:
        report = until(agent, lambda report: report.registry_problem)
        assert "is empty: expected digits" in report.registry_problem
        assert "not yet digits of revision 1 or higher" in report.disk_problem
        done = bench.once("--json")
        assert done.code != 0
        documents.rmdir()
        (bench.sync.folder / "away").rename(documents)
        (documents / "digits" / "state.json").rename(bench.sync.folder / "state")
        report = until(agent, lambda report: report.models["digits"].problem)
        assert "went backwards" in report.models["digits"].problem
        assert [path.read_bytes() for path in files] == before
        (bench.sync.folder / "state").rename(documents / "digits" / "state.json")
        until(agent, lambda report: report.well)


def test_without_its_memory_once_writes_nothing_over_routes_of_an_empty_registry(bench: GatewayBench) -> None:
    with started(bench) as agent:
        until(agent, lambda report: report.well)
    bench.envoy.kill()
    before = (bench.directory / "routes.json").read_bytes()
    shutil.rmtree(bench.directory / ".slipway")
    documents = bench.sync.folder / "registry" / "registry"
    documents.rename(bench.sync.folder / "away")
    documents.mkdir()
    empty = bench.once("--json")
    bench.sync.stable("faces")  # now it lists something, and not what is routed
    other = bench.once("--json")

    assert (empty.code, empty.error["class"]) == (1, "StorageError")
    assert "is empty: expected digits" in empty.error["message"]
    assert (other.code, other.error["class"]) == (1, "StorageError")
    assert "not yet digits of revision 1 or higher" in other.error["message"]
    assert (bench.directory / "routes.json").read_bytes() == before


def test_routes_that_somebody_else_wrote_are_refused_where_the_memory_is_gone(bench: GatewayBench) -> None:
    (bench.directory / "routes.json").write_bytes(b"{}")

    done = bench.once("--json")

    assert (done.code, done.error["class"]) == (1, "FormatError")
    assert str(bench.directory / "routes.json") in done.error["message"]


def test_a_memory_that_somebody_else_wrote_is_refused(bench: GatewayBench) -> None:
    with started(bench) as agent:
        until(agent, lambda report: report.well)
    memory = bench.directory / ".slipway" / "gateway.json"
    memory.write_bytes(b"{}")

    done = bench.once("--json")

    assert (done.code, done.error["class"]) == (1, "FormatError")
    assert str(memory) in done.error["message"]
    assert "remove it" in done.error["hint"]


def test_an_admin_that_is_only_slow_is_no_reason_to_break(bench: GatewayBench, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(bench) as agent:
        until(agent, lambda report: report.well)
    routes = (bench.directory / "routes.json").read_bytes()
    bench.sync.stable()

    with dripper(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n") as slow, started(bench, envoy=slow.url) as agent:
        until(agent, lambda report: report.models["digits"].wanted_revision == 2)
        agent.tick()
        assert (bench.directory / "routes.json").read_bytes() == routes
        assert "digits:2@stable/rest" in (bench.directory / "clusters.json").read_text()
        monkeypatch.setattr(envoy_watch, "_SILENCE", 0.1)  # after which it counts as gone
        until(agent, lambda _: (bench.directory / "routes.json").read_bytes() != routes)


@contextmanager
def slowed(url: str) -> Iterator[tuple[str, threading.Event]]:
    """Envoy's admin behind something that says nothing while the event is set, and then closes nothing either."""
    slow, over = threading.Event(), threading.Event()

    class Relay(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if slow.is_set():
                over.wait(WITHIN)
                return
            with urllib.request.urlopen(f"{url}{self.path}", timeout=WITHIN) as answer:
                body = answer.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", slow
        finally:
            over.set()
            server.shutdown()
            thread.join()


def test_a_silent_envoy_is_as_ready_as_it_was_until_it_counts_as_gone(bench: GatewayBench) -> None:
    later = 0.0
    with (
        slowed(bench.envoy.admin_url) as (url, slow),
        started(bench, envoy=url, clock=lambda: time.monotonic() + later) as agent,
    ):
        slow.set()
        agent.tick()
        assert not agent.ready()  # it never was
        slow.clear()
        until(agent, lambda report: report.well)
        assert agent.ready()
        slow.set()
        agent.tick()
        assert not agent.report().envoy_reachable
        assert agent.ready()
        later += envoy_watch._SILENCE
        agent.tick()
        assert not agent.ready()
        slow.clear()
        until(agent, lambda _: agent.ready())


def test_an_envoy_that_refuses_is_not_ready_at_once(bench: GatewayBench) -> None:
    with started(bench) as agent:
        until(agent, lambda report: report.well)
        assert agent.ready()
        bench.envoy.kill()
        agent.tick()
        assert not agent.ready()


def test_a_symbolic_link_is_never_written_through(bench: GatewayBench, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    clusters = bench.directory / "clusters.json"
    clusters.unlink()
    clusters.symlink_to(victim)

    with started(bench) as agent:
        until(agent, lambda report: "symbolic link" in report.disk_problem)
        clusters.unlink()
        until(agent, lambda report: report.well)
    assert victim.read_text() == "precious"
