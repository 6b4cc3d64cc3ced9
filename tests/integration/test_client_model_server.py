"""The client and `slipway predict --server` against a model server."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest

from flows.cli import main
from model_registry.errors import InvalidInputError, NotFoundError, SlipwayError, StorageError
from model_registry.registry import Registry
from model_registry.servable import TensorInfo
from model_registry.serving.client import Client
from model_registry.serving.client_examples import fill_examples
from model_registry.serving.client_messages import message_class
from model_registry.storage.local import LocalStore
from tests.support.fixtures_model_server import StartServer
from tests.support.model_server_processes import RunningServer, until
from tests.support.published_models import publish
from tests.support.served_models import model_entry, write_config
from tests.support.tiny_models import WARMUP_FILE, TinyModels

pytestmark = pytest.mark.xdist_group("model_server")
ROOT = Path(__file__).parents[2]
ROWS = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


@pytest.fixture
def base_path(tmp_path: Path, tiny_models: TinyModels) -> Path:
    path = tmp_path / "models" / "digits"
    path.mkdir(parents=True)
    for version in (1, 2):
        tiny_models.write(path, version)
    return path


@pytest.fixture
def config(tmp_path: Path, base_path: Path) -> Path:
    entry = model_entry("digits", base_path, [1, 2], {"stable": 1, "canary": 2})
    return write_config(tmp_path / "models.config", entry)


@pytest.fixture
def server(model_server: StartServer, config: Path) -> RunningServer:
    return model_server(config)


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.target, timeout=30.0) as client:
        yield client


@pytest.mark.parametrize(
    ("chosen", "expected"), [({}, 2), ({"version": 1}, 1), ({"label": "stable"}, 1), ({"label": "canary"}, 2)]
)
def test_the_version_that_is_named_answers(client: Client, chosen: dict[str, Any], expected: int) -> None:
    answer = client.predict("digits", {"x": ROWS}, **chosen)

    assert answer.version == expected
    assert answer.outputs["version"].tolist() == [expected, expected]
    assert answer.outputs["version"].dtype == np.int64
    np.testing.assert_array_equal(answer.outputs["y"], ROWS * expected)


def test_a_label_that_moves_is_followed(client: Client, server: RunningServer, base_path: Path, config: Path) -> None:
    assert client.predict("digits", ROWS, label="stable").version == 1

    write_config(config, model_entry("digits", base_path, [1, 2], {"stable": 2}))

    until(lambda: client.predict("digits", ROWS, label="stable").version == 2, server, "stable is 2")


def test_a_server_that_is_killed_and_started_again_costs_time_and_no_request(server: RunningServer) -> None:
    failures: list[SlipwayError] = []
    answered = 0
    ended = threading.Event()

    def ask() -> None:
        nonlocal answered
        while not ended.is_set():
            try:
                client.predict("digits", ROWS)
                answered += 1
            except SlipwayError as error:
                failures.append(error)
                return

    # One retry, and a server that is away for longer than the pause before it: the retry waits for the connection.
    with Client(server.target, timeout=60.0, retries=1) as client:
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for _ in range(2):
                before = answered
                until(lambda seen=before: answered > seen + 10 or failures, server, "requests are answered")
                server.kill()
                time.sleep(0.5)
                server.start().wait_ready()
        finally:
            ended.set()
            asking.join()

    assert failures == []


def test_a_server_that_stays_away_is_a_transient_error_within_the_deadline(
    client: Client, server: RunningServer
) -> None:
    client.predict("digits", ROWS)
    server.kill()

    started = time.monotonic()
    with pytest.raises(StorageError, match=r"did not recover within 1 s") as caught:
        client.predict("digits", ROWS, timeout=1)

    assert caught.value.transient
    assert time.monotonic() - started < 20  # and not the minutes that gRPC would wait for a connection


def test_a_deadline_ends_an_answer_that_takes_too_long(client: Client) -> None:
    # Some 100,000 turns a second.
    with pytest.raises(StorageError, match="did not answer for digits within 1 s"):
        client.predict("digits", {"steps": [500_000]}, signature="spin", timeout=1)


def test_strings_go_there_and_come_back(client: Client) -> None:
    answer = client.predict("digits", {"text": ["grün", "a"]}, signature="texts")

    assert [text.decode() for text in answer.outputs["upper"]] == ["GRÜN", "A"]
    assert answer.outputs["raw_bytes"].tolist() == ["grün".encode() + b"\xff\x00", b"a\xff\x00"]


def test_messages_larger_than_grpcs_default_pass(client: Client) -> None:
    rows = np.random.default_rng(0).random((1_000_000, 2), np.float32)

    np.testing.assert_array_equal(client.predict("digits", rows, version=1, timeout=60).outputs["y"], rows)


def test_no_rows_are_answered_with_none(client: Client) -> None:
    assert client.predict("digits", np.empty((0, 2), np.float32)).outputs["y"].shape == (0, 2)


def test_classify_and_regress_are_asked_by_their_own_calls(client: Client) -> None:
    classified = client.predict("digits", {"x": ROWS}, signature="classify", version=2)
    regressed = client.predict("digits", {"x": ROWS.tolist()}, signature="regress", label="stable")

    assert classified.outputs["classes"].tolist() == [[b"left", b"right"]] * 2
    np.testing.assert_array_equal(classified.outputs["scores"], ROWS * 2)
    assert regressed.outputs["outputs"].tolist() == [3.0, 7.0]
    assert (classified.version, regressed.version) == (2, 1)


def test_the_signature_is_the_servers(client: Client) -> None:
    found = client.signature("digits", label="stable")

    assert found.method == "predict"
    assert found.inputs == (TensorInfo("x", "float32", (None, 2)),)
    assert sorted(item.name for item in found.outputs) == ["version", "y"]
    version, signatures = client.signatures("digits", label="stable")
    assert version == 1
    assert [(item.name, item.method) for item in signatures] == [
        ("classify", "classify"),
        ("regress", "regress"),
        ("serving_default", "predict"),
        ("spin", "predict"),
        ("texts", "predict"),
    ]


def test_the_status_tells_every_version(client: Client) -> None:
    assert [(status.version, status.state, status.error) for status in client.status("digits")] == [
        (1, "AVAILABLE", ""),
        (2, "AVAILABLE", ""),
    ]


@pytest.mark.parametrize(
    ("model", "chosen", "expected"),
    [
        ("digit", {}, "the server knows no model 'digit'"),
        ("digits", {"version": 7}, "its versions are 1 AVAILABLE, 2 AVAILABLE"),
        ("digits", {"label": "gold"}, "a label is served once its version is AVAILABLE"),
        ("digits", {"signature": "text"}, "no signature 'text'; did you mean 'texts'?"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(
    client: Client, model: str, chosen: dict[str, Any], expected: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.predict(model, ROWS, **chosen)

    assert expected in str(caught.value)


def test_what_the_model_refuses_is_told_in_its_words(client: Client) -> None:
    with pytest.raises(InvalidInputError, match="x"):
        client.predict("digits", {"other": [[1.0, 2.0]]}, signature="classify")


def slipway(*arguments: object) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"instances": ROWS.tolist()}))
    return path


@pytest.mark.parametrize(("reference", "expected"), [("digits", 2), ("digits:1", 1), ("digits@canary", 2)])
def test_predict_asks_a_server_without_a_registry(
    server: RunningServer, request_file: Path, reference: str, expected: int
) -> None:
    asked = ("predict", reference, "--server", server.target, "--inputs", request_file)
    result = slipway(*asked, "--registry", "/nonexistent/registry", "--json")

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["model"], document["version"], document["signature"]) == ("digits", expected, "serving_default")
    assert document["outputs"]["y"] == (ROWS * expected).tolist()
    lines = slipway(*asked).stdout.splitlines()
    assert lines[:2] == [f"digits:{expected} serving_default", "version  int64 [2]"]


@pytest.fixture
def payload(tiny_models: TinyModels, tmp_path: Path) -> Path:
    """What version 1 was published as, with its warm-up records."""
    directory = tiny_models.write(tmp_path / "published", 1)
    tiny_models.add_warmup(directory)
    return directory


def publish_version(payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(LocalStore(tmp_path / "registry"))
    monkeypatch.setenv("SLIPWAY_REGISTRY", registry.store.uri)
    publish(registry, payload, tmp_path)


def test_predict_asks_a_server_with_the_published_warm_up_record(
    server: RunningServer, payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_version(payload, tmp_path, monkeypatch)

    result = slipway("predict", "digits@stable", "--server", server.target)

    assert result.exit_code == 0, result.stderr
    assert "first warm-up record of serving_default, 1 row" in result.stderr
    assert result.stdout.splitlines()[0] == "digits:1 serving_default"
    missing = slipway("predict", "digits:1", "--server", server.target, "--signature", "spin")
    assert missing.exit_code == 1
    assert "digits:1 has no warm-up record for signature 'spin'" in missing.stderr
    assert "give --inputs FILE" in missing.stderr


def test_predict_asks_for_a_classification_with_recorded_examples(
    server: RunningServer, payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = message_class("PredictionLog")()
    log.classify_log.request.model_spec.signature_name = "classify"
    fill_examples(log.classify_log.request.input.example_list.examples, {"x": ROWS})
    record = log.SerializeToString()
    (payload / WARMUP_FILE).write_bytes(struct.pack("<QI", len(record), 0) + record + bytes(4))
    publish_version(payload, tmp_path, monkeypatch)

    result = slipway("predict", "digits:1", "--server", server.target, "--signature", "classify", "--json")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["outputs"] == {"classes": [["left", "right"]] * 2, "scores": ROWS.tolist()}


@pytest.mark.parametrize(("kind", "expected"), [("cut", "it ends within one"), ("no_log", "one is no PredictionLog")])
def test_predict_refuses_a_file_that_holds_no_warm_up_records(
    server: RunningServer,
    tiny_models: TinyModels,
    payload: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    expected: str,
) -> None:
    tiny_models.add_warmup(payload, kind)
    publish_version(payload, tmp_path, monkeypatch)

    result = slipway("predict", "digits:1", "--server", server.target)

    assert result.exit_code == 1
    assert expected in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--variant", "native"], 2, "--variant is not for --server"),
        (["--signature", "nope"], 1, "no signature 'nope'"),
        (["--tls-ca", "/nonexistent.pem"], 1, "there is no file /nonexistent.pem"),
        (["--timeout", "0"], 2, "--timeout"),
    ],
)
def test_predict_refuses_what_does_not_fit_a_server(
    server: RunningServer, request_file: Path, options: list[str], code: int, expected: str
) -> None:
    result = slipway("predict", "digits", "--server", server.target, "--inputs", request_file, *options)

    assert result.exit_code == code, result.output
    assert expected in result.stderr


def test_predict_takes_no_options_of_a_server_without_one(request_file: Path) -> None:
    result = slipway("predict", "digits", "--inputs", request_file, "--timeout", "3")

    assert result.exit_code == 2
    assert "--tls-ca and --timeout are for --server" in result.stderr


def test_predict_tells_at_once_that_nothing_listens(server: RunningServer, request_file: Path) -> None:
    server.kill()

    result = slipway("predict", "digits", "--server", server.target, "--inputs", request_file, "--timeout", 3600)

    assert result.exit_code == 1
    assert f"{server.target} cannot be reached" in result.stderr


def test_predict_asks_a_server_without_tensorflow(server: RunningServer, request_file: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['tensorflow_serving'] = None; "
        "from flows.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "predict", "digits:1", "--server", server.target, "--inputs", request_file]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("digits:1 serving_default\n")
