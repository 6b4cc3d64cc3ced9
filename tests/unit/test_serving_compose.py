"""The compose file, read as YAML; what it has a shell or an interpreter run is run here, in no container."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from ruamel.yaml import YAML

from flows.cli import main
from model_registry.serving.compose.agents import PASSED_THROUGH
from model_registry.serving.compose.deployment import Deployment
from model_registry.serving.compose.whole import to_text
from tests.support.model_server import flags
from tests.support.model_server.parameter_files import BatchingParameters, MonitoringConfig

BUCKET = Deployment("s3://models/prefix", ("digits", "faces"), ("stable",), ("tensorrt-fp16-sm80", "native"))
ALL = [
    Deployment(registry, gpu=gpu, batching=batching, public_key=key)
    for registry, gpu, batching, key in itertools.product(
        ("s3://models", "/srv/registry"), (False, True), (False, True), (None, "/etc/keys.pem")
    )
]


def parsed(deployment: Deployment) -> dict[str, Any]:
    """As Compose reads it: `$$` stands for a dollar sign."""
    document = YAML(typ="safe").load(to_text(deployment))
    assert isinstance(document, dict)
    return document


def as_run(words: list[str]) -> list[str]:
    assert not any("$" in word.replace("$$", "") for word in words), "Compose would put a variable's value there"
    return [word.replace("$$", "$") for word in words]


@pytest.mark.parametrize("deployment", ALL, ids=str)
def test_every_deployment_is_a_document_of_the_same_services(deployment: Deployment) -> None:
    file = parsed(deployment)

    assert set(file["services"]) == {"first-sync", "tf-serving", "agent"}
    assert file["services"]["tf-serving"]["image"] == f"tensorflow/serving:2.17.1{'-gpu' if deployment.gpu else ''}"
    assert ("devices" in str(file)) == deployment.gpu
    assert set(file["configs"]) == ({"monitoring", "batching"} if deployment.batching else {"monitoring"})


@pytest.mark.parametrize("deployment", ALL, ids=str)
def test_the_server_knows_each_flag(deployment: Deployment) -> None:
    found = flags.parse(parsed(deployment)["services"]["tf-serving"]["command"])

    assert found.model_config_file == "/models/models.config"
    assert found.model_config_file_poll_wait_seconds == 1
    assert found.allow_version_labels_for_unavailable_models
    assert (found.max_num_load_retries, found.num_load_threads) == (0, 2)
    assert found.enable_batching == found.enable_per_model_batching_parameters == deployment.batching


def test_the_server_reads_what_stands_in_the_file() -> None:
    file = parsed(replace(BUCKET, batching=True))
    server = file["services"]["tf-serving"]
    mounted = {item["target"]: file["configs"][item["source"]]["content"] for item in server["configs"]}
    found = flags.parse(server["command"])

    monitoring = text_format.Parse(mounted.pop(found.monitoring_config_file), MonitoringConfig())
    batching = text_format.Parse(mounted.pop(found.batching_parameters_file), BatchingParameters())

    assert monitoring.prometheus_config.enable
    assert batching.thread_pool_name.value
    assert mounted == {}


def test_agent_and_server_have_one_directory_and_only_the_agent_writes_it() -> None:
    services = parsed(BUCKET)["services"]

    assert services["agent"]["volumes"] == services["first-sync"]["volumes"] == ["models:/models"]
    (mount,) = services["tf-serving"]["volumes"]
    assert (mount["source"], mount["target"], mount["read_only"]) == ("models", "/models", True)


def test_server_and_agent_start_when_the_first_sync_is_through() -> None:
    services = parsed(BUCKET)["services"]

    for name in ("tf-serving", "agent"):
        assert services[name]["depends_on"] == {"first-sync": {"condition": "service_completed_successfully"}}
        assert services[name]["restart"] == "unless-stopped"
    assert services["first-sync"]["restart"] == "no"


@pytest.mark.parametrize("deployment", ALL, ids=str)
def test_nobody_else_reaches_a_port_and_every_service_is_confined(deployment: Deployment) -> None:
    for service in parsed(deployment)["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    for name in ("tf-serving", "agent"):
        assert parsed(deployment)["services"][name]["deploy"]["resources"]["limits"]["memory"]


def test_no_credential_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSED_THROUGH:
        monkeypatch.setenv(name, "a secret")

    text = to_text(BUCKET)

    assert "a secret" not in text
    assert parsed(BUCKET)["services"]["agent"]["environment"] == list(PASSED_THROUGH)


def test_manifests_are_held_against_the_key_that_is_configured() -> None:
    for registry in ("s3://models", "/srv/registry"):
        agent = parsed(Deployment(registry, public_key="/etc/keys.pem"))["services"]["agent"]

        (variable,) = [item for item in agent["environment"] if "=" in item]
        (mount,) = [item for item in agent["volumes"] if "/etc/keys.pem" in str(item)]
        assert variable == f"SLIPWAY_PUBLIC_KEY={mount['target']}"
        assert mount["read_only"]


@pytest.mark.parametrize("strange", ['/srv/a "b"', "/srv/$HOME", "/srv/#1: x", "/srv/é\\n"])
def test_a_strange_path_stays_what_it_is(strange: str) -> None:
    (_, mount) = parsed(Deployment(strange))["services"]["agent"]["volumes"]

    assert as_run([mount["source"]]) == [strange]


def test_both_agents_follow_the_same() -> None:
    services = parsed(BUCKET)["services"]
    followed = [
        "--registry=s3://models/prefix",
        "--model=digits",
        "--model=faces",
        "--label=stable",
        "--variant=tensorrt-fp16-sm80",
        "--variant=native",
    ]

    assert services["first-sync"]["command"] == ["sync", "/models", "--once", *followed]
    assert services["agent"]["command"][:2] == ["sync", "/models"]
    assert services["agent"]["command"][-len(followed) :] == followed


def test_the_agent_knows_each_option() -> None:
    for name in ("first-sync", "agent"):
        command, *options = parsed(BUCKET)["services"][name]["command"]

        context = main.commands[command].make_context(command, options)

        assert context.params["labels"] == ("stable",)
        assert context.params["once"] == (name == "first-sync")


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (4, 0), (1, 1), (2, 1)])
def test_the_first_sync_is_through_where_an_agent_is_at_work(code: int, expected: int, tmp_path: Path) -> None:
    program = tmp_path / "slipway"
    program.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    program.chmod(0o755)
    service = parsed(BUCKET)["services"]["first-sync"]
    command = [*as_run(service["entrypoint"]), *service["command"]]

    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, check=False
    )

    assert done.returncode == expected
    assert done.stdout.split() == service["command"]


class _Answering(BaseHTTPRequestHandler):
    """Answers with the status in the server's `status`; notes what was asked."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Answering) as started:
        started.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=started.serve_forever, args=(0.05,))
        thread.start()
        yield started
        started.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("service", "port", "path"),
    [("tf-serving", "8501", "/monitoring/prometheus/metrics"), ("agent", "8502", "/healthz")],
)
def test_a_service_is_healthy_when_it_answers(service: str, port: str, path: str, server: HTTPServer) -> None:
    kind, program, *words = parsed(BUCKET)["services"][service]["healthcheck"]["test"]
    assert kind == "CMD"
    program = sys.executable if program == "python" else program

    def healthy(at: int) -> bool:
        command = [program, *(word.replace(port, str(at)) for word in as_run(words))]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0

    server.status = 200  # type: ignore[attr-defined]
    assert healthy(server.server_port)
    assert server.asked == [path]  # type: ignore[attr-defined]
    server.status = 503  # type: ignore[attr-defined]
    assert not healthy(server.server_port)
    server.server_close()
    assert not healthy(server.server_port)
