"""A real Envoy between clients and model servers: what each version gets, and that nothing is lost on the way."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from model_registry.serving.client import Client
from model_registry.serving.fleet import Fleet, FleetFile, Server
from model_registry.serving.gateway import envoy_metrics as counted
from model_registry.serving.gateway.envoy_resources import CLUSTERS_FILE, ROUTES_FILE, weights_in_force
from model_registry.serving.gateway.routing import ModelRoute, RoutingTable, Side
from tests.support.envoy_process import EnvoyProcess
from tests.support.fixtures_envoy import StartEnvoy
from tests.support.fixtures_model_server import StartServers
from tests.support.gateway_load import Answer, Asker, Grpc, Rest, many, without_pause
from tests.support.model_server_processes import RunningServer
from tests.support.served_models import model_entry, write_config
from tests.support.tiny_models import TinyModels

pytestmark = [pytest.mark.xdist_group("model_server"), pytest.mark.timeout(240)]

MODEL = "digits"
_RETRIES = "envoy_cluster_upstream_rq_retry"
SIGMAS = 5  # one run in two million is out of it


@dataclass
class Bench:
    """Model servers that each follow some labels, and the file that names them."""

    models: Path
    folder: Path
    tiny: TinyModels
    start: StartServers

    def servers(self, *labels: dict[str, int], versions: tuple[int, ...] = ()) -> list[RunningServer]:
        """One for each set of labels; with the versions that those name, and more."""
        files = []
        for index, named in enumerate(labels):
            files.append(self.folder / f"{index}-{'-'.join(named)}.config")
            self.write(files[-1], named, versions)
        return self.start(files)

    def write(self, file: Path, named: dict[str, int], versions: tuple[int, ...] = ()) -> None:
        wanted = sorted({*named.values(), *versions})
        for version in wanted:
            if not (self.models / str(version)).exists():
                self.tiny.write(self.models, version)
        write_config(file, model_entry(MODEL, self.models, wanted, named))


@pytest.fixture
def bench(tmp_path: Path, tiny_models: TinyModels, many_model_servers: StartServers) -> Bench:
    (tmp_path / "models").mkdir()
    return Bench(tmp_path / "models", tmp_path, tiny_models, many_model_servers)


def place(server: RunningServer) -> Server:
    return Server(host="127.0.0.1", grpc=server.port, rest=server.rest_port)


def fleets(**servers: tuple[Server, ...]) -> FleetFile:
    return FleetFile(fleets={name: Fleet(servers=found) for name, found in servers.items()})


def shared(stable: Server, canary: Server, weight: int, revision: int = 1) -> RoutingTable:
    route = ModelRoute(MODEL, revision, Side("stable", 2, (stable,)), Side("canary", 3, (canary,)), weight)
    return RoutingTable((route,))


def clients(envoy: EnvoyProcess) -> dict[str, Rest | Grpc]:
    return {
        "REST, each request over a new connection": Rest(envoy.rest_port, MODEL, fresh=True),
        "REST": Rest(envoy.rest_port, MODEL),
        "gRPC": Grpc(envoy.target, MODEL),
    }


def answered_more(askers: list[Asker], envoy: EnvoyProcess, count: int = 30) -> None:
    """Waits until each has so many more answers, or failed."""
    before = [asker.answers.total() for asker in askers]
    envoy.wait(
        lambda: all(
            asker.answers.total() >= was + count or asker.failures for asker, was in zip(askers, before, strict=True)
        ),
        f"{count} more answers of each client",
    )


def assert_nothing_lost(askers: list[Asker]) -> None:
    assert {asker.name: asker.failures for asker in askers} == {asker.name: [] for asker in askers}


def test_each_version_gets_its_share_and_all_accounts_agree(start_envoy: StartEnvoy, bench: Bench) -> None:
    stable, canary = map(place, bench.servers({"stable": 2}, {"canary": 3}))
    envoy = start_envoy(fleets(stable=(stable,), canary=(canary,)), shared(stable, canary, 0))
    total: Counter[tuple[str, str]] = Counter()
    requests, count = 0, 5_000

    for revision, weight in enumerate((5, 25, 100), start=2):
        envoy.tell(shared(stable, canary, weight, revision))
        for api in ("rest", "grpc"):
            asking = [Rest(envoy.rest_port, MODEL) if api == "rest" else Grpc(envoy.target, MODEL) for _ in range(4)]
            found = many(asking, count)
            assert {answer.header for answer in found} == {f"{MODEL}:{answer.version}" for answer in found}
            by_version = Counter({str(answer.version): times for answer, times in found.items()})
            share = weight / 100
            deviation = math.sqrt(count * share * (1 - share))
            assert abs(by_version["3"] - count * share) <= SIGMAS * deviation, f"{api} at {weight} %: {by_version}"
            assert by_version.total() == count and by_version.keys() <= {"2", "3"}
            total.update({(api, version): times for version, times in by_version.items()})
            requests += count

    for (api, version), times in total.items():
        same = {"model": MODEL, "label": "stable" if version == "2" else "canary", "version": version, "api": api}
        assert envoy.value(counted.REQUESTS, **same, **{counted.CLASS: "2"}) == times
        assert envoy.value(counted.GRPC_SUCCESSES, **same) == (times if api == "grpc" else 0)
        latencies = {**same, "le": "+Inf"}
        envoy.wait(lambda of=latencies, n=times: envoy.value(counted.LATENCY, **of) == n, "latencies")  # type: ignore[misc]
    lines = envoy.access_log(requests)
    assert Counter((line["api"], line["version"]) for line in lines) == total
    assert {(line["status"], line["grpc_status"] or None, line["attempts"]) for line in lines} == {
        (200, None, 1),
        (200, "OK", 1),
    }


def test_a_weight_changes_and_no_request_is_lost(start_envoy: StartEnvoy, bench: Bench) -> None:
    stable, canary = map(place, bench.servers({"stable": 2}, {"canary": 3}))
    envoy = start_envoy(fleets(stable=(stable,), canary=(canary,)), shared(stable, canary, 0))

    with without_pause(clients(envoy)) as askers:
        answered_more(askers, envoy)
        assert [asker.versions for asker in askers] == [{2}] * 3
        for revision, weight in enumerate((5, 25, 100, 50, 0, 100), start=2):
            envoy.tell(shared(stable, canary, weight, revision))
            answered_more(askers, envoy)

    assert_nothing_lost(askers)
    assert [asker.versions for asker in askers] == [{2, 3}] * 3


def test_a_label_moves_and_neither_a_short_nor_a_long_request_is_lost(start_envoy: StartEnvoy, bench: Bench) -> None:
    (server,) = bench.servers({"stable": 2}, versions=(4,))
    stable = place(server)
    before = RoutingTable((ModelRoute(MODEL, 1, Side("stable", 2, (stable,))),))
    after = RoutingTable((ModelRoute(MODEL, 2, Side("stable", 4, (stable,))),))
    envoy = start_envoy(fleets(stable=(stable,)), before)
    old = f"{MODEL}:2@stable/rest"

    def spinning() -> bool:
        return envoy.value("envoy_cluster_upstream_rq_active", version="2", api="rest") >= 1

    body = json.dumps({"signature_name": "spin", "inputs": {"steps": [300_000]}})
    long = Rest(envoy.rest_port, MODEL, body=body, output="turns")
    with without_pause(clients(envoy)) as askers:
        answered_more(askers, envoy)
        with without_pause({"a long request": long}, once=True) as (slow,):
            envoy.wait(spinning, "the long request to be under way")
            bench.write(bench.folder / "0-stable.config", {"stable": 4}, (2,))
            envoy.tell(after, before=(before,))
            envoy.wait(lambda: old.encode() not in envoy.dump("dynamic_active_clusters"), "the old cluster to be gone")
            answered_more(askers, envoy)
        envoy.wait(lambda: askers[1].last.version == 4, "the server to follow")

    assert_nothing_lost([*askers, slow])
    assert slow.answers.total() == 1
    assert askers[1].last == Answer(4, f"{MODEL}:4")


def test_a_server_that_dies_takes_only_what_it_was_doing_with_it(start_envoy: StartEnvoy, bench: Bench) -> None:
    servers = bench.servers({"stable": 2}, {"stable": 2})
    places = tuple(map(place, servers))
    envoy = start_envoy(fleets(stable=places), RoutingTable((ModelRoute(MODEL, 1, Side("stable", 2, places)),)))

    def healthy(count: int) -> bool:
        return envoy.value("envoy_cluster_membership_healthy", label="stable", api="rest") == count

    for dying, staying in (servers, reversed(servers)):
        with without_pause(clients(envoy)) as askers:
            answered_more(askers, envoy)
            dying.kill()
            answered_more(askers, envoy)
        for asker in askers:  # one at a time, so each had one request there at most
            assert len(asker.failures) <= 1, asker.failures

        with without_pause(clients(envoy)) as askers:
            envoy.wait(lambda: healthy(1), "the dead server to be noticed")
            answered_more(askers, envoy)
            dying.restart()
            envoy.wait(lambda: healthy(2), "the server to be seen again")
            answered_more(askers, envoy)
        assert_nothing_lost(askers)
        assert staying.is_running
    # A request that found nobody goes elsewhere next, not there again until it has no try left.
    tried, came = (envoy.value(f"{_RETRIES}{ended}", label="stable", api="rest") for ended in ("", "_success"))
    assert tried - came <= 1 + 0.02 * tried, f"{tried} tries, {came} came through"
    assert tried > 50


def test_the_only_server_is_used_again_as_soon_as_it_is_back(start_envoy: StartEnvoy, bench: Bench) -> None:
    (server,) = bench.servers({"stable": 2})
    stable = place(server)
    envoy = start_envoy(fleets(stable=(stable,)), RoutingTable((ModelRoute(MODEL, 1, Side("stable", 2, (stable,))),)))

    server.kill()
    for client in (Rest(envoy.rest_port, MODEL), Grpc(envoy.target, MODEL)):
        with pytest.raises(RuntimeError, match=r"503|UNAVAILABLE"):
            client()
        client.close()
    server.restart()

    assert many([Rest(envoy.rest_port, MODEL)], 20) == {Answer(2, f"{MODEL}:2"): 20}
    assert many([Grpc(envoy.target, MODEL)], 20) == {Answer(2, f"{MODEL}:2"): 20}


def test_a_broken_file_is_refused_and_the_routes_stay(start_envoy: StartEnvoy, bench: Bench) -> None:
    stable, canary = map(place, bench.servers({"stable": 2}, {"canary": 3}))
    envoy = start_envoy(fleets(stable=(stable,), canary=(canary,)), shared(stable, canary, 25, 7))
    clusters, routes = ((envoy.directory / name).read_bytes() for name in (CLUSTERS_FILE, ROUTES_FILE))
    for name, content, counter in (
        (CLUSTERS_FILE, clusters[: len(clusters) // 2], "envoy_cluster_manager_cds_update_failure"),
        (CLUSTERS_FILE, clusters.replace(b'"2.000s"', b'"-2.000s"'), "envoy_cluster_manager_cds_update_rejected"),
        (ROUTES_FILE, routes[: len(routes) // 2], "envoy_http_rds_slipway_update_failure"),
        (ROUTES_FILE, routes.replace(b"/v1/models/", b"(/v1/models/"), "envoy_http_rds_slipway_update_rejected"),
    ):
        before = envoy.value(counter)
        envoy.put(name, content)
        envoy.wait(lambda was=before, of=counter: envoy.value(of) > was, f"{name} to be refused as {counter}")  # type: ignore[misc]

    assert weights_in_force(envoy.dump("dynamic_route_configs")) == {MODEL: (25, 7)}
    assert many([Rest(envoy.rest_port, MODEL), Grpc(envoy.target, MODEL)], 40).total() == 40


def test_one_fleet_shares_rest_by_label_and_leaves_grpc_whole(start_envoy: StartEnvoy, bench: Bench) -> None:
    (server,) = bench.servers({"stable": 2, "canary": 3})
    place_ = place(server)
    stable, canary = Side("stable", 2, (place_,), alone=False), Side("canary", 3, (place_,), alone=False)
    route = ModelRoute(MODEL, 1, stable, canary, 25)
    file = FleetFile(fleets={"all": Fleet(labels=("stable", "canary"), servers=(place_,))})
    envoy = start_envoy(file, RoutingTable((replace(route, weight=0),)))
    envoy.tell(RoutingTable((replace(route, revision=2),)))

    rest = many([Rest(envoy.rest_port, MODEL), Rest(envoy.rest_port, MODEL)], 400)
    grpc = many([Grpc(envoy.target, MODEL)], 100)

    assert rest.keys() == {Answer(2, f"{MODEL}:2"), Answer(3, f"{MODEL}:3")}
    assert abs(rest[Answer(3, f"{MODEL}:3")] - 100) <= SIGMAS * math.sqrt(400 * 0.25 * 0.75)
    assert grpc == {Answer(3, ""): 100}, "without a label, a server answers with its highest version"
    assert envoy.value(counted.GRPC_SUCCESSES, label="-stable", version="0") == 100
    assert envoy.value(counted.GRPC_SUCCESSES) == 100, "what nobody knows the version of is no sample of any"


def test_our_client_says_what_a_gateway_for_several_models_must_know(start_envoy: StartEnvoy, bench: Bench) -> None:
    (server,) = bench.servers({"stable": 2})
    stable = Side("stable", 2, (place(server),))
    routes = tuple(ModelRoute(name, 1, stable) for name in (MODEL, "faces"))
    envoy = start_envoy(fleets(stable=stable.servers), RoutingTable(routes))

    with Client(envoy.target) as client:
        assert client.predict(MODEL, {"x": [[1.0, 2.0]]}).version == 2
    with pytest.raises(RuntimeError, match=r"NOT_FOUND .*slipway-model"):
        Grpc(envoy.target, MODEL, named=False)()
