"""`slipway.label.moved`, the event of a label that moved: who emits it, and what it costs where nobody listens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_registry.registry import Registry
from model_registry.storage import open_store
from tests.support.command import slipway
from tests.support.drafts import make_draft, make_payload
from tests.support.prefect_api import call, until
from tests.support.prefect_processes import PrefectServer

pytestmark = pytest.mark.xdist_group("prefect")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With the versions 1 and 2 of a model whose name is the test's own."""
    registry = Registry(open_store(str(tmp_path / "registry")))
    for identity in ("a1", "a2"):
        registry.publish(make_draft(tmp_path.name, identity), {"native": make_payload(tmp_path / "payload")})
    return registry


def moves(server: PrefectServer, model: str) -> list[dict[str, Any]]:
    """The events of a model's labels, the first one first."""
    criteria = {"event": {"name": ["slipway.label.moved"]}, "resource": {"id": [f"slipway.model.{model}"]}}
    found = call(server, "events/filter", {"filter": {**criteria, "order": "ASC"}})
    return [event for event in found["events"] if event["event"] == "slipway.label.moved"]


def test_each_move_of_a_label_is_an_event_of_flows_and_of_the_command_line(
    registry: Registry, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    from flows.promote_model import promote_model

    model, where = tmp_path.name, ["--registry", registry.store.uri]
    with prefect_server.connected():
        promote_model(model, 1, "stable", reason="first", registry=registry.store.uri)
        promote_model(model, 1, "stable", registry=registry.store.uri)  # it is so already
    for arguments in (
        ["promote", f"{model}:2", "stable", "--reason", "faster"],
        ["promote", f"{model}:1", "canary", "--dry-run"],
        ["rollback", model, "stable"],
        ["unlabel", model, "stable"],
        ["retire", f"{model}:2"],
    ):
        done = slipway(*arguments, *where, folder=tmp_path, environ=prefect_server.environ())
        assert (done.code, "Prefect" in done.stderr) == (0, False), done

    until(lambda: len(moves(prefect_server, model)) == 4, "every move is an event")

    found = moves(prefect_server, model)
    told = [event["payload"] for event in found]
    moved = [(item["action"], item["from_version"], item["to_version"]) for item in told]
    assert moved == [("promote", None, 1), ("promote", 1, 2), ("rollback", 2, 1), ("unlabel", 1, None)]
    assert [item["revision"] for item in told] == [1, 2, 3, 4]
    assert [item["reason"] for item in told[:2]] == ["first", "faster"]
    assert any(related["prefect.resource.role"] == "flow-run" for related in found[0]["related"])
    assert found[1]["resource"]["slipway.label"] == "stable"


def test_a_prefect_that_does_not_answer_is_warned_of_and_the_label_moves(registry: Registry, tmp_path: Path) -> None:
    with socket.socket() as silent:  # accepts, and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        environ = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "home")}
        done = slipway(
            *["promote", f"{tmp_path.name}:1", "stable", "--registry", registry.store.uri, "--json"],
            folder=tmp_path,
            environ=environ,
        )

    assert done.code == 0
    assert (done.document["to"], done.document["changed"]) == (1, True)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "the label was moved; Prefect was not told" in done.stderr
    assert registry.state(tmp_path.name).labels == {"stable": 1}


def test_a_resolver_that_does_not_answer_holds_up_no_command(registry: Registry, tmp_path: Path) -> None:
    script = """
import socket, sys, threading
known = socket.getaddrinfo
def silent(host, *arguments, **options):
    if host == "prefect.example":
        threading.Event().wait()
    return known(host, *arguments, **options)
socket.getaddrinfo = silent
from flows.cli import main
main(sys.argv[1:])
"""
    environ = {**os.environ, "PREFECT_API_URL": "http://prefect.example/api", "PREFECT_HOME": str(tmp_path / "home")}
    arguments = ["promote", f"{tmp_path.name}:1", "stable", "--registry", registry.store.uri]

    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,  # a hang, not a time that it may take
    )

    assert done.returncode == 0, done.stderr
    assert "stable" in done.stdout
    assert "Prefect was not told: http://prefect.example/api: no answer within" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("broken", "profiles"),
    [
        ({"PREFECT_HOME": "~nobody-of-this-name/prefect"}, None),
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_API_REQUEST_TIMEOUT": "abc"}, None),
        ({"PREFECT_PROFILE": "p"}, "[profiles.p\nPREFECT_API_URL = 7"),
    ],
    ids=["home", "setting", "profiles"],
)
def test_settings_of_prefect_that_are_broken_are_no_failure_of_the_move(
    broken: dict[str, str], profiles: str | None, registry: Registry, tmp_path: Path
) -> None:
    outside = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environ = {**outside, "PREFECT_HOME": str(tmp_path / "home"), **broken}
    if profiles:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "profiles.toml").write_text(profiles)

    done = slipway(
        *["promote", f"{tmp_path.name}:1", "stable", "--registry", registry.store.uri, "--json"],
        folder=tmp_path,
        environ=environ,
    )

    assert done.code == 0, done
    assert (done.document["to"], done.document["changed"]) == (1, True)
    assert "Traceback" not in done.stderr
    assert ("Prefect was not told" in done.stderr) == ("PREFECT_HOME" not in broken), done.stderr


def test_a_label_given_while_packaging_is_one_event_whether_the_version_is_new_or_reused(
    models: Path, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    model, where = tmp_path.name, ["--registry", str(tmp_path / "registry"), "--json"]
    for label, reused in (("stable", False), ("canary", True), ("canary", True)):
        done = slipway(
            *["package", str(models / "tiny.keras"), "--name", model, "--variant", "native", "--label", label, *where],
            folder=tmp_path,
            environ=prefect_server.environ(),
        )
        assert (done.code, done.document["reused"]) == (0, reused), done

    until(lambda: len(moves(prefect_server, model)) == 2, "both moves are events")

    assert [event["payload"]["label"] for event in moves(prefect_server, model)] == ["stable", "canary"]


def test_without_a_configured_prefect_none_is_loaded(registry: Registry, tmp_path: Path) -> None:
    script = """
import sys
from flows.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    sys.exit(done.code or "prefect" in sys.modules)
"""
    environ = {**os.environ, "PREFECT_HOME": str(tmp_path / "home")}
    arguments = ["promote", f"{tmp_path.name}:1", "stable", "--registry", registry.store.uri]

    done = subprocess.run([sys.executable, "-c", script, *arguments], env=environ, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert registry.state(tmp_path.name).labels == {"stable": 1}
