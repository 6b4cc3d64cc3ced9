"""The compose file of two fleets behind a gateway: held against Compose's schema, and given to the programs.

No container is run. Each command line is read by the program that would be started with it, each file inside is read
by who reads it there, and each script is run by its shell.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest
from ruamel.yaml import YAML

from flows.cli import main
from model_registry.serving.compose.agents import PASSED_THROUGH
from model_registry.serving.compose.deployment import Deployment
from model_registry.serving.compose.whole import to_text
from model_registry.serving.fleet_file import parse_fleet
from model_registry.serving.gateway.envoy_resources import CLUSTERS_FILE, ROUTES_FILE, clusters_file, routes_file
from model_registry.serving.gateway.routing import RoutingTable
from tests.support.fixtures_model_server import StartServer
from tests.support.fixtures_s3 import Bucket
from tests.support.model_server import flags
from tests.support.ports import free_port
from tests.support.sync_bench import SyncBench

ROOT = Path(__file__).parents[2]
EXAMPLE = Deployment("s3://models/slipway", models=("digits",), batching=True, gateway=True)
ALL = {
    "-".join(filter(None, (registry[:2], gpu and "gpu", key and "key", gateway and "gateway"))): Deployment(
        registry, gpu=gpu, batching=gpu, public_key=key, gateway=gateway
    )
    for registry, gpu, key, gateway in itertools.product(
        ("s3://models", "/srv/registry"), (False, True), (None, "/etc/keys.pem"), (False, True)
    )
}
BEHIND = [name for name in ALL if ALL[name].gateway]


def parsed(deployment: Deployment) -> dict[str, Any]:
    document = YAML(typ="safe").load(to_text(deployment))
    assert isinstance(document, dict)
    return document


def as_run(text: str) -> str:
    assert "$" not in text.replace("$$", ""), "Compose would put a variable's value there"
    return text.replace("$$", "$")


def content(file: dict[str, Any], name: str) -> str:
    return as_run(file["configs"][name]["content"])


def schema_problems(path: Path) -> str:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.fixture
def compose_schema() -> None:
    """Compose's own schema, which check-jsonschema brings; skips where it is missing, but fails under CI."""
    if importlib.util.find_spec("check_jsonschema") is None:
        reason = "Compose's schema is missing: install the package check-jsonschema of the group `dev`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.usefixtures("compose_schema")
@pytest.mark.parametrize("name", ALL)
def test_compose_s_schema_accepts_every_deployment(name: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(to_text(ALL[name]))

    assert schema_problems(tmp_path / "compose.yaml") == ""


@pytest.mark.usefixtures("compose_schema")
def test_a_key_that_compose_does_not_know_is_found(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(to_text(EXAMPLE).replace("restart: unless-stopped", "restrt: always", 1))

    assert "restrt" in schema_problems(tmp_path / "compose.yaml")


def test_the_example_is_what_is_rendered() -> None:
    said = "write it anew: slipway render compose --gateway --registry s3://models/slipway --model digits --batching"
    assert (ROOT / "deploy/compose.yaml").read_text() == to_text(EXAMPLE), said


@pytest.mark.parametrize("name", BEHIND)
def test_what_is_referred_to_is_there(name: str) -> None:
    file = parsed(ALL[name])
    services = file["services"]

    for service in services.values():
        mounts = service.get("volumes", [])
        sources = {mount["source"] if isinstance(mount, dict) else mount.partition(":")[0] for mount in mounts}
        assert {source for source in sources if not source.startswith("/")} <= file["volumes"].keys()
        assert {config["source"] for config in service.get("configs", [])} <= file["configs"].keys()
        assert service.get("depends_on", {}).keys() <= services.keys()
        assert service.get("network_mode", "service:gateway").removeprefix("service:") in services
        assert service["cap_drop"] == ["ALL"]
        assert service["deploy"]["resources"]["limits"]["memory"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    published = [port.split(":")[1] for service in services.values() for port in service.get("ports", [])]
    assert len(published) == len({*published})
    assert ("registry" in services) == ("bucket" in services) == ALL[name].remote


@pytest.mark.parametrize("name", BEHIND)
def test_servers_and_agents_know_their_options_and_serve_one_label_each(name: str) -> None:
    services = parsed(ALL[name])["services"]

    for fleet in ("stable", "canary"):
        server = services[f"tf-serving-{fleet}"]
        known = flags.parse(server["command"])
        assert known.model_config_file == server["entrypoint"][-1]
        assert known.per_process_gpu_memory_fraction == (0.45 if ALL[name].gpu else 0)
        command, *options = services[f"agent-{fleet}"]["command"]
        found = main.commands[command].make_context(command, options).params
        assert (found["labels"], found["server"]) == ((fleet,), f"http://tf-serving-{fleet}:8501")
        (mount,) = server["volumes"]
        assert f"{mount['source']}:{mount['target']}" in services[f"agent-{fleet}"]["volumes"]
        assert mount["read_only"]
    assert services["agent-stable"]["entrypoint"][-1] == services["tf-serving-stable"]["entrypoint"][-1]
    command, *options = services["gateway-agent"]["command"]
    assert main.commands[command].make_context(command, options).params["fleet"] == Path("/etc/slipway/fleet.yaml")


@pytest.mark.parametrize("name", BEHIND)
def test_the_gateway_asks_the_servers_that_are_there(name: str) -> None:
    file = parsed(ALL[name])
    fleets = parse_fleet(content(file, "fleet").encode(), "fleet.yaml")

    for fleet in fleets.fleets.values():
        (server,) = fleet.servers
        known = flags.parse(file["services"][server.host]["command"])
        assert (server.grpc, server.rest) == (known.port, known.rest_api_port)
    assert {name: fleets.labels(name) for name in fleets.fleets} == {"stable": ("stable",), "canary": ("canary",)}


def test_envoy_starts_with_what_stands_in_the_file(envoy_program: Path, tmp_path: Path) -> None:
    file = parsed(EXAMPLE)
    fleets = parse_fleet(content(file, "fleet").encode(), "fleet.yaml")
    service = file["services"]["envoy"]
    (mount,) = service["volumes"]
    (tmp_path / CLUSTERS_FILE).write_bytes(clusters_file(RoutingTable(), file=fleets))
    (tmp_path / ROUTES_FILE).write_bytes(routes_file(RoutingTable(), file=fleets))
    (tmp_path / "envoy.json").write_text(content(file, "envoy").replace(mount["target"], str(tmp_path)))
    (config,) = service["configs"]
    words = [str(tmp_path / "envoy.json") if word == config["target"] else word for word in service["command"]]

    done = subprocess.run(
        [envoy_program, "--mode", "validate", *words], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert service["entrypoint"][-2:] == [f"{mount['target']}/{name}" for name in (CLUSTERS_FILE, ROUTES_FILE)]


def test_prometheus_takes_what_stands_in_the_file(promtool: Path, tmp_path: Path) -> None:
    file = parsed(EXAMPLE)
    mounted = {config["source"]: config["target"] for config in file["services"]["prometheus"]["configs"]}
    config = content(file, "prometheus").replace(mounted["rules"], str(tmp_path / "rules.yaml"))
    (tmp_path / "prometheus.yml").write_text(config)
    (tmp_path / "rules.yaml").write_text(content(file, "rules"))

    done = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
    assert f"--config.file={mounted['prometheus']}" in file["services"]["prometheus"]["command"]
    jobs = YAML(typ="safe").load(config)["scrape_configs"]
    scraped = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert {host.split(":")[0] for targets in scraped.values() for host in targets} <= file["services"].keys()
    gateway = parse_fleet(content(file, "fleet").encode(), "fleet.yaml").gateway
    assert scraped["envoy"] == [f"gateway:{gateway.metrics}"]
    assert '"port_value": ' + str(gateway.metrics) in content(file, "envoy")


def run_as(service: dict[str, Any], programs: dict[str, str], tmp_path: Path, stands_for: dict[str, str]) -> list[str]:
    """Runs a service's entrypoint with programs of the test's own, and returns what they printed."""
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    words = [as_run(word) for word in [*service["entrypoint"], *service["command"]]]
    for path, other in stands_for.items():
        words = [word.replace(path, other) for word in words]
    done = subprocess.run(
        words,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HERE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


_NO_SLEEP = {"sleep": "exit 0"}
_CONFIG = "/models/models.config"
_PRINTS = 'echo "$0" "$@"'


def test_an_agent_prepares_until_there_is_something_and_then_follows(tmp_path: Path) -> None:
    service = parsed(EXAMPLE)["services"]["agent-stable"]
    # Nothing can be served at the first two times.
    slipway = f"""\
echo "$*"
case "$*" in
*--once) echo . >> $HERE/tries; [ $(wc -l < $HERE/tries) -gt 2 ] && touch {tmp_path}/models.config;;
esac"""
    said = run_as(service, {"slipway": slipway, **_NO_SLEEP}, tmp_path, {_CONFIG: str(tmp_path / "models.config")})

    assert [line.endswith("--once") for line in said] == [True, True, True, False]
    again = run_as(service, {"slipway": slipway, **_NO_SLEEP}, tmp_path, {_CONFIG: str(tmp_path / "models.config")})
    assert [line.endswith("--once") for line in again] == [False], "a server may run already"
    assert again == said[-1:]


@pytest.mark.xdist_group("model_server")
def test_before_the_first_rollout_agent_and_server_of_the_canary_answer(
    sync_bench: SyncBench, model_server: StartServer, tmp_path: Path
) -> None:
    services = parsed(EXAMPLE)["services"]
    assert "entrypoint" not in services["agent-canary"], "it follows at once, and prepares nothing"
    sync_bench.stable()
    rest = free_port()

    agent = sync_bench.agent("--label=canary", server=f"http://127.0.0.1:{rest}")
    agent.until(sync_bench.config_file.exists, "there is what a server can start with")
    assert not agent.report().server_reachable
    monitored = tmp_path / "monitoring.config"
    monitored.write_text(content(parsed(EXAMPLE), "monitoring"))
    server = model_server(sync_bench.config_file, rest_api_port=rest, monitoring_config_file=monitored)
    agent.until(lambda: agent.report().server_reachable, "the server is up")
    with urllib.request.urlopen(f"{server.url}/monitoring/prometheus/metrics", timeout=10) as page:
        assert page.status == 200
    canary = sync_bench.publish()
    sync_bench.promote(canary, "canary")

    agent.serves({"canary": canary})


def test_a_server_waits_for_its_config_and_envoy_for_its_routes(tmp_path: Path) -> None:
    services = parsed(EXAMPLE)["services"]
    sleep = {"sleep": f"touch {tmp_path}/models.config {tmp_path}/{CLUSTERS_FILE} {tmp_path}/{ROUTES_FILE}"}

    (served,) = run_as(
        services["tf-serving-stable"],
        {"tensorflow_model_server": _PRINTS, **sleep},
        tmp_path,
        {_CONFIG: str(tmp_path / "models.config")},
    )
    (tmp_path / ROUTES_FILE).unlink(missing_ok=True)
    (routed,) = run_as(services["envoy"], {"envoy": _PRINTS, **sleep}, tmp_path, {"/var/lib/slipway": str(tmp_path)})

    assert flags.parse(served.split()[1:]).model_config_file == str(tmp_path / "models.config")
    assert routed.split()[1:] == services["envoy"]["command"]


def test_the_bucket_is_made_once(s3_bucket: Bucket) -> None:
    services = parsed(Deployment(f"s3://{s3_bucket.name}-new/prefix", gateway=True))["services"]
    python, *words = services["bucket"]["entrypoint"]
    assert python == "python"

    for _ in range(2):
        subprocess.run(
            [sys.executable, *map(as_run, words)],
            env={**os.environ, **s3_bucket.environ()},
            check=True,
            timeout=120,
        )

    names = [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]
    assert names.count(f"{s3_bucket.name}-new") == 1


def test_the_s3_server_does_not_start_with_keys_that_everybody_knows(tmp_path: Path) -> None:
    service = parsed(EXAMPLE)["services"]["registry"]
    (tmp_path / "minio").write_text("#!/bin/sh\necho $*\n")
    (tmp_path / "minio").chmod(0o755)
    words = [as_run(word) for word in [*service["entrypoint"], *service["command"]]]

    def run(**keys: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **keys}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert run(MINIO_ROOT_USER="a", MINIO_ROOT_PASSWORD="b").stdout == "server /data\n"
    assert run(MINIO_ROOT_USER="", MINIO_ROOT_PASSWORD="b").returncode != 0
    assert "AWS_SECRET_ACCESS_KEY" in run(MINIO_ROOT_USER="a").stderr


def test_no_credential_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSED_THROUGH:
        monkeypatch.setenv(name, "a secret")

    assert "a secret" not in to_text(EXAMPLE)
