"""What the manifests have other programs run, run here: Envoy's port for metrics, its farewell, Prometheus' queries."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from pathlib import Path

import pytest

from model_registry.serving.fleet import Fleet, FleetFile, Server
from model_registry.serving.gateway.envoy_bootstrap import HEALTH_PATH, bootstrap
from model_registry.serving.gateway.envoy_resources import CLUSTERS_FILE, ROUTES_FILE, clusters_file, routes_file
from model_registry.serving.gateway.metrics_port import PATH
from model_registry.serving.gateway.routing import RoutingTable
from model_registry.serving.kubernetes.autoscaling import latency_query, utilization_query
from model_registry.serving.kubernetes.gateway import drain_command
from tests.support.envoy_process import EnvoyProcess
from tests.support.fixtures_envoy import StartEnvoy
from tests.support.kubernetes_objects import container, rendered
from tests.support.ports import free_port

FILE = FleetFile(fleets={"stable": Fleet(servers=(Server(host="127.0.0.1"),))})


def asked(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.usefixtures("envoy_program")
def test_the_port_for_metrics_answers_nothing_but_metrics(tmp_path: Path) -> None:
    envoy = EnvoyProcess(FILE, tmp_path / "envoy")
    port = envoy.file.gateway.metrics

    with envoy:
        status, page = asked(port, PATH)
        others = [("GET", "/quitquitquit"), ("POST", "/quitquitquit"), ("POST", PATH), ("GET", "/config_dump")]
        others += [("GET", f"{PATH}/../../config_dump"), ("GET", "/stats/prometheus/"), ("GET", "/")]
        refused = {asked(port, path, method)[0] for method, path in others}
        still = asked(port, f"{PATH}?usedonly")[0]

    assert status == still == 200
    assert b"envoy_server_live" in page
    assert refused == {404}


@pytest.mark.usefixtures("envoy_program")
def test_two_gateways_do_not_share_a_port_for_metrics(tmp_path: Path) -> None:
    first, second = (EnvoyProcess(FILE, tmp_path / name) for name in ("first", "second"))
    port = first.file.gateway.metrics
    gateway = second.file.gateway.model_copy(update={"metrics": port})
    file = second.file.model_copy(update={"gateway": gateway})
    (second.directory / "bootstrap.json").write_text(bootstrap(file, directory=str(second.directory)))

    with first, pytest.raises(AssertionError, match=rf"cannot bind '127.0.0.1:{port}'"):
        second.start()


def test_a_gateway_about_to_end_tells_its_clients_first(start_envoy: StartEnvoy) -> None:
    envoy = start_envoy(FILE)
    assert asked(envoy.rest_port, HEALTH_PATH)[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", envoy.rest_port, timeout=20)
    connection.request("GET", "/v1/models/none")
    before = connection.getresponse()
    before.read()

    done = subprocess.run(drain_command(envoy.file.gateway.admin, 0), capture_output=True, timeout=30, check=False)

    assert (done.returncode, b"200 OK" in done.stdout) == (0, True), done
    connection.request("GET", "/v1/models/none")
    after = connection.getresponse()
    assert (before.getheader("connection"), after.getheader("connection")) == (None, "close")
    assert after.status == before.status == 404
    connection.close()
    assert asked(envoy.rest_port, HEALTH_PATH)[0] == 503


@pytest.mark.usefixtures("envoy_program")
def test_envoy_waits_out_its_farewell_where_its_admin_does_not_answer() -> None:
    done = subprocess.run(drain_command(free_port(), 0), capture_output=True, timeout=30, check=False)

    assert done.returncode == 0


def test_the_autoscalers_numbers_are_seconds_percents_and_zero_where_nobody_asks(
    promtool: Path, tmp_path: Path
) -> None:
    latency = latency_query().replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="serving"')
    percent = utilization_query().replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="serving"')
    bucket = ':tensorflow:serving:request_latency_bucket{model_name="digits",namespace="serving",pod="%s",le="%s"}'
    series = [
        (bucket % ("busy", "100000"), "0+50x20"),
        (bucket % ("busy", "200000"), "0+100x20"),
        (bucket % ("busy", "+Inf"), "0+100x20"),
        (bucket % ("idle", "100000"), "7x20"),
        (bucket % ("idle", "+Inf"), "7x20"),
        ('DCGM_FI_DEV_GPU_UTIL{gpu="0",namespace="serving",pod="busy"}', "60x20"),
        ('DCGM_FI_DEV_GPU_UTIL{gpu="0",namespace="other",pod="stranger"}', "90x20"),
    ]
    expected = [
        (latency, [('{pod="busy"}', 0.198), ('{pod="idle"}', 0)]),
        (percent, [('{pod="busy"}', 60)]),
    ]
    (tmp_path / "rules.yaml").write_text("groups: []\n")
    test = {
        "rule_files": ["rules.yaml"],
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in series],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "5m",
                        "exp_samples": [{"labels": labels, "value": value} for labels, value in samples],
                    }
                    for query, samples in expected
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(json.dumps(test))

    done = subprocess.run(
        [promtool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pod_of_a_canary_asks_until_its_label_names_something(tmp_path: Path) -> None:
    template = rendered("fleets: {stable: {}, canary: {}}").pods("tf-serving-canary")
    first = container(template, "first-sync")
    for name, script in (
        ("slipway", f"echo $* >> {tmp_path}/said; [ $(wc -l < {tmp_path}/said) -gt 2 ]"),
        ("sleep", ""),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    done = subprocess.run(
        [*first["command"], *first["args"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        timeout=60,
        check=False,
    )

    said = (tmp_path / "said").read_text().splitlines()
    assert (done.returncode, len(said)) == (0, 3), done
    assert {line.split()[0] for line in said} == {"sync"}


@pytest.mark.usefixtures("envoy_program")
def test_envoy_starts_with_what_the_manifests_have_it_started_with(envoy_program: Path, tmp_path: Path) -> None:
    (tmp_path / CLUSTERS_FILE).write_bytes(clusters_file(RoutingTable(), file=FILE))
    (tmp_path / ROUTES_FILE).write_bytes(routes_file(RoutingTable(), file=FILE))
    text = bootstrap(FILE, directory=str(tmp_path), listen="0.0.0.0", metrics="0.0.0.0")
    (tmp_path / "envoy.json").write_text(text)

    done = subprocess.run(
        [envoy_program, "--mode", "validate", "--config-path", tmp_path / "envoy.json", "--disable-hot-restart"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
