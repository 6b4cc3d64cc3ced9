"""What is said to Envoy, read as the JSON that it is; what Envoy makes of it is asked in test_gateway_counts."""

from __future__ import annotations

import json
import math
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main
from model_registry.errors import FormatError
from model_registry.serving import client_calls
from model_registry.serving.fleet import Fleet, FleetFile, Gateway, Server
from model_registry.serving.gateway import envoy_metrics, envoy_resources, envoy_routes
from model_registry.serving.gateway.envoy_bootstrap import bootstrap
from model_registry.serving.gateway.routing import ModelRoute, RoutingTable, Side
from tests.support import envoy_process

A, B, C = (Server(host=f"server-{name}") for name in "abc")
FILE = FleetFile(fleets={"stable": Fleet(), "canary": Fleet()}, gateway=Gateway(timeout=12.5))
STABLE, CANARY = Side("stable", 2, (A,)), Side("canary", 3, (B,))


def table(weight: int = 25, *models: str, canary: Side | None = CANARY, stable: Side = STABLE) -> RoutingTable:
    return RoutingTable(tuple(ModelRoute(name, 7, stable, canary, weight) for name in models or ("digits",)))


def clusters(found: RoutingTable, *keep: RoutingTable) -> dict[str, Any]:
    document = json.loads(envoy_resources.clusters_file(found, file=FILE, keep=keep))
    return {cluster["name"]: cluster for cluster in document["resources"]}


def routes(found: RoutingTable) -> list[dict[str, Any]]:
    (configuration,) = json.loads(envoy_resources.routes_file(found, file=FILE))["resources"]
    (host,) = configuration["virtual_hosts"]
    return host["routes"]  # type: ignore[no-any-return]


def leads_to(found: RoutingTable) -> set[str]:
    """All clusters that routes name."""
    text = json.dumps(routes(found))
    return set(re.findall(r'"(?:cluster|name)": "([^"]+@[^"]+)"', text))


TABLES = [
    pytest.param(table(weight), id=f"{weight} %") for weight in (0, 5, 100)
] + [
    pytest.param(table(0, canary=None), id="no canary"),
    pytest.param(table(5, "digits", "digits.v2", "faces"), id="several models"),
    pytest.param(table(5, stable=Side("stable", 2, (A,), alone=False)), id="not alone"),
    pytest.param(table(5, canary=Side("canary", 3, (A,), alone=False)), id="canary not alone"),
    pytest.param(
        RoutingTable((ModelRoute("digits", 7, STABLE, CANARY, 5, (Side("beta", 4, (C,)), Side("zeta", 3, (C,)))),)),
        id="other labels",
    ),
    pytest.param(RoutingTable(), id="nothing"),
]  # fmt: skip


@pytest.mark.parametrize("found", TABLES)
def test_every_route_leads_to_a_cluster_that_is_there(found: RoutingTable) -> None:
    assert leads_to(found) <= clusters(found).keys()


@pytest.mark.parametrize("found", TABLES)
def test_the_clusters_of_a_table_do_not_depend_on_its_weight(found: RoutingTable) -> None:
    weightless = RoutingTable(
        tuple(ModelRoute(one.model, 8, one.stable, one.canary, 0, one.others) for one in found.models)
    )

    assert clusters(found) == clusters(weightless)


def test_clusters_stay_that_routes_in_force_may_lead_to() -> None:
    before, after = table(), table(stable=Side("stable", 5, (C,)), canary=None, weight=0)

    assert clusters(after, before) == {**clusters(before), **clusters(after)}
    assert "digits:2@stable/rest" not in clusters(after)


def test_the_servers_of_a_cluster_are_those_of_the_newest_table() -> None:
    before, after = table(), table(stable=Side("stable", 2, (C,)))

    assert clusters(after, before) == clusters(after)


def test_what_does_not_change_is_the_same_bytes() -> None:
    files = [envoy_resources.clusters_file, envoy_resources.routes_file]
    for write in files:
        assert write(table(), file=FILE) == write(table(), file=FILE)
        versions = {json.loads(write(found, file=FILE))["version_info"] for found in (table(), table(5, "faces"))}
        assert len(versions) == 2


def test_a_model_s_name_is_no_pattern_and_no_prefix() -> None:
    def matching(path: str) -> set[str]:
        patterns = {
            route["match"]["safe_regex"]["regex"]: route["route"].get("cluster", "")
            for route in routes(table(5, "digits", "digits.v2", "digits-v2"))
            if "safe_regex" in route["match"]
        }
        return {cluster.split(":")[0] for pattern, cluster in patterns.items() if re.fullmatch(pattern, path)}

    for name in ("digits", "digits.v2", "digits-v2"):
        for rest in (":predict", "", "/metadata", "/labels/canary:predict", "/versions/2", "/whatever"):
            assert matching(f"/v1/models/{name}{rest}") == {name}
    for path in ("/v1/models/digitsXv2:predict", "/v1/models/digits.v:predict", "/v1/models/digit:predict"):
        assert matching(path) == set()


@pytest.mark.parametrize(("weight", "expected"), [(0, None), (5, 5), (100, 100)])
def test_canary_s_route_takes_its_share_of_the_requests(weight: int, expected: int | None) -> None:
    fractions = [
        route["match"]["runtime_fraction"]["default_value"]
        for route in routes(table(weight))
        if "runtime_fraction" in route["match"]
    ]
    weighted = [
        {cluster["name"]: cluster["weight"] for cluster in route["route"]["weighted_clusters"]["clusters"]}
        for route in routes(table(weight))
        if "weighted_clusters" in route.get("route", {})
    ]

    assert fractions == ([] if expected is None else [{"numerator": expected, "denominator": "HUNDRED"}] * 2)
    assert weighted, "gRPC is routed"
    for shares in weighted:
        assert sum(shares.values()) == 100
        assert sum(share for name, share in shares.items() if ":3@" in name) == weight


def test_nothing_is_sent_twice_that_a_server_may_have_begun_on() -> None:
    for route in routes(table()):
        if "route" in route:
            assert route["route"]["retry_policy"]["retry_on"] == "connect-failure,refused-stream,reset-before-request"
            assert route["route"]["timeout"] == "12.500s"


def test_no_server_is_taken_out_for_its_errors() -> None:
    for cluster in clusters(table()).values():
        assert "outlier_detection" not in cluster
        (check,) = cluster["health_checks"]
        assert check["tcp_health_check"] == {}


def dump(*configurations: Any) -> bytes:
    return json.dumps({"configs": [{"route_config": one} for one in configurations]}).encode()


def test_weights_are_read_back_as_they_were_written() -> None:
    (written,) = json.loads(envoy_resources.routes_file(table(25, "a.b", "c"), file=FILE))["resources"]

    assert envoy_resources.weights_in_force(dump(written)) == {"a.b": (25, 7), "c": (25, 7)}
    assert envoy_resources.weights_in_force(b"{}") == {}
    assert envoy_resources.weights_in_force(dump({"name": "another"})) == {}


def test_the_revisions_of_a_file_of_routes_are_read_back() -> None:
    written = envoy_resources.routes_file(table(25, "a.b", "c"), file=FILE)

    assert envoy_resources.revisions_written(written, path="x") == {"a.b": 7, "c": 7}
    assert envoy_resources.revisions_written(envoy_resources.routes_file(RoutingTable(), file=FILE), path="x") == {}


@pytest.mark.parametrize("said", [b"", b"{}", b"[]", b"null", b"\xff", b'{"resources": 7}', b'{"resources": [7]}'])
def test_routes_of_somebody_else_are_refused(said: bytes) -> None:
    with pytest.raises(FormatError, match=r"/srv/routes.json is not what an agent writes") as caught:
        envoy_resources.revisions_written(said, path="/srv/routes.json")
    assert "remove it" in (caught.value.hint or "")


def test_clusters_are_missing_until_envoy_shows_them() -> None:
    names = sorted(clusters(table()))
    active = [{"cluster": {"name": name}} for name in names]

    assert envoy_resources.clusters_missing(table(), b"{}") == {*names}
    assert envoy_resources.clusters_missing(table(), json.dumps({"configs": active[1:]}).encode()) == {names[0]}
    assert envoy_resources.clusters_missing(table(), json.dumps({"configs": active}).encode()) == frozenset()


@pytest.mark.parametrize(
    "said",
    [
        b"", b"<html>", b"[]", b"7", b'{"configs": 7}', b'{"configs": [7]}', b'{"configs": [{}]}', b"\xff", b"null",
        b'{"configs": [{"route_config": 7, "cluster": 7}]}', b'{"configs": [{"route_config": null, "cluster": null}]}',
        b'{"configs": [{"route_config": {"metadata": {"filter_metadata": {"slipway": {"m": {}}}}}, "cluster": {}}]}',
    ],
)  # fmt: skip
def test_what_is_no_dump_is_told_from_one_without_anything(said: bytes) -> None:
    for read in (envoy_resources.weights_in_force, lambda found: envoy_resources.clusters_missing(table(), found)):
        with pytest.raises(FormatError, match="something else than a dump of its configuration"):
            read(said)


def test_the_admin_interface_is_on_the_loopback_wherever_requests_are_taken() -> None:
    document = json.loads(bootstrap(FILE, directory="/x", listen="0.0.0.0"))

    assert document["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 9901}
    *taken, metrics = [one["address"]["socket_address"] for one in document["static_resources"]["listeners"]]
    assert taken == [{"address": "0.0.0.0", "port_value": port} for port in (8080, 8081)]
    assert metrics == {"address": "127.0.0.1", "port_value": 9902}


def test_the_buckets_end_where_envoys_own_times_do() -> None:
    bounds = envoy_metrics.BUCKETS
    edges = [math.ceil(bound) if bound < 100 else bound + 1 for bound in bounds]

    assert (edges[0], edges[-1]) == (1, 60_000)
    # Two digits are what Envoy keeps of a time: an edge between two of them would be another one than it says.
    assert all(float(f"{edge:.1e}") == edge for edge in edges)
    assert all(after / before < 1.26 for before, after in pairwise(edges) if before >= 5)


def test_our_client_and_the_routes_call_a_model_by_the_same_header() -> None:
    assert client_calls.MODEL_METADATA == envoy_routes.MODEL_HEADER


def test_envoy_takes_what_render_prints(tmp_path: Path, envoy_program: Path) -> None:
    assert envoy_program.exists()
    fleet = tmp_path / "fleet.yaml"
    ports = {"rest": 7001, "grpc": 7002, "admin": 7003, "metrics": 7004}
    fleet.write_text(json.dumps({"fleets": {"stable": {}}, "gateway": {**ports, "timeout": "250ms"}}))
    (tmp_path / "clusters.json").write_bytes(envoy_resources.clusters_file(table(), file=FILE))
    (tmp_path / "routes.json").write_bytes(envoy_resources.routes_file(table(), file=FILE))
    command = ["render", "envoy", "--fleet", str(fleet), "--directory", str(tmp_path), "--listen", "0.0.0.0"]

    result = CliRunner().invoke(main, command)
    told = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)

    assert result.exit_code == 0, result.output
    assert (told["content"], told["ports"]) == (result.stdout, ports)
    validation = envoy_process.validate(result.stdout, tmp_path)
    assert validation.valid, validation.said
    assert not envoy_process.validate(result.stdout.replace("stat_prefix", "prefix"), tmp_path).valid


@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        ([], {"rest": "127.0.0.1", "grpc": "127.0.0.1", "metrics": "127.0.0.1"}),
        (["--listen", "10.0.0.1"], {"rest": "10.0.0.1", "grpc": "10.0.0.1", "metrics": "127.0.0.1"}),
        (["--metrics", "10.0.0.2"], {"rest": "127.0.0.1", "grpc": "127.0.0.1", "metrics": "10.0.0.2"}),
    ],
)
def test_only_what_is_told_so_is_opened_beyond_loopback(
    tmp_path: Path, options: list[str], addresses: dict[str, str]
) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("fleets: {stable: {}}\n")

    config = json.loads(CliRunner().invoke(main, ["render", "envoy", "--fleet", str(fleet), *options]).stdout)

    listeners = config["static_resources"]["listeners"]
    assert {one["name"]: one["address"]["socket_address"]["address"] for one in listeners} == addresses
    assert config["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


@pytest.mark.parametrize("page", ["README.md", "docs/gateway.md"])
def test_the_commands_that_the_pages_name_fit_together(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    rendered = re.search(r"^(?:\$ )?(slipway render envoy .*?) *>", text, re.MULTILINE)
    assert rendered
    told = main.commands["render"].commands["envoy"].make_context("envoy", shlex.split(rendered[1])[3:]).params  # type: ignore[attr-defined]
    after = [line.removeprefix("$ ").partition("  #")[0].strip() for line in text[rendered.end() :].splitlines()]
    once, agent = (line for line in after if line.startswith("slipway gateway "))

    assert [line.split()[2] for line in (once, agent)] == [told["directory"]] * 2
    # One agent for each directory: the first has ended before the second begins.
    assert "--once" in once and not once.endswith("&") and "--once" not in agent
    assert after.index(once) < after.index("envoy -c envoy.json &") < after.index(agent)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--metrics", "*"], 2, "expected an IP address such as 0.0.0.0"),
        (["--listen", "example.org"], 2, "expected an IP address such as 0.0.0.0"),
        (["--directory", "here"], 1, "expected an absolute path"),
        (["--fleet", "nowhere.yaml"], 1, "nowhere.yaml"),
    ],
)
def test_render_says_what_is_wrong(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("fleets: {stable: {}}\n")

    result = CliRunner().invoke(main, ["render", "envoy", "--fleet", str(fleet), *options])

    assert result.exit_code == code
    assert said in result.output
    assert "Traceback" not in result.output
