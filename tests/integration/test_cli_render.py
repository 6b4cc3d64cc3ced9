"""`slipway render` on a registry that holds something."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click.testing
import pytest
from google.protobuf import text_format
from ruamel.yaml import YAML
from tensorflow_serving.config import model_server_config_pb2

from flows.cli import main
from model_registry.registry import Registry
from model_registry.servable import Signature, TensorInfo
from model_registry.state import Origin
from tests.support.drafts import make_draft, make_payload
from tests.support.model_server.parameter_files import BatchingParameters, MonitoringConfig

ANN = Origin("ann@build-7")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """With digits 1 (stable) and 2 (canary), faces 1 (stable), and a model without a label."""
    monkeypatch.setenv("SLIPWAY_REGISTRY", str(tmp_path / "registry"))
    opened = Registry.open()
    for number, model in enumerate(("digits", "digits", "faces", "unnamed")):
        opened.publish(make_draft(model, f"{number}" * 64), {"native": make_payload(tmp_path / "payload")})
    opened.promote("digits", 1, "stable", origin=ANN)
    opened.promote("digits", 2, "canary", origin=ANN)
    opened.promote("faces", 1, "stable", origin=ANN)
    return opened


def slipway(*arguments: object) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(main, ["render", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def printed(*arguments: object) -> str:
    result = slipway(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def models(*arguments: object) -> dict[str, tuple[str, list[int], dict[str, int]]]:
    config = text_format.Parse(printed("tf-serving", *arguments), model_server_config_pb2.ModelServerConfig())
    return {
        item.name: (item.base_path, list(item.model_version_policy.specific.versions), dict(item.version_labels))
        for item in config.model_config_list.config
    }


@pytest.mark.usefixtures("registry")
def test_a_server_is_told_what_the_labels_name() -> None:
    assert models("--base-path", "/srv/") == {
        "digits": ("/srv/models/digits", [1, 2], {"stable": 1, "canary": 2}),
        "faces": ("/srv/models/faces", [1], {"stable": 1}),
    }


@pytest.mark.usefixtures("registry")
def test_a_server_is_told_of_some_models_and_labels_only() -> None:
    assert models("--model", "digits", "--label", "stable") == {"digits": ("/models/models/digits", [1], {"stable": 1})}
    assert list(models("--label", "stable")) == ["digits", "faces"]


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "unnamed"], "unnamed has no label"),
        (["--model", "faces", "--label", "canary"], "faces has no label canary"),
        (["--model", "digit"], "no model 'digit'"),
        (["--label", "shadow"], "no model in"),
    ],
)
def test_a_config_of_nothing_is_not_printed(arguments: list[str], message: str) -> None:
    result = slipway("tf-serving", *arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert message in result.stderr


def test_a_model_that_cannot_be_read_is_not_left_out(registry: Registry) -> None:
    Path(registry.store.uri, "registry/faces/state.json").write_text("{")

    result = slipway("tf-serving")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "faces" in result.stderr


def test_the_whole_servers_batching_and_monitoring_need_no_registry(tmp_path: Path) -> None:
    threads = text_format.Parse(printed("batching", "--threads", 3), BatchingParameters())
    monitored = text_format.Parse(printed("monitoring"), MonitoringConfig())

    assert threads.num_batch_threads.value == 3
    assert monitored.prometheus_config.enable
    assert not (tmp_path / "registry").exists()


@pytest.mark.usefixtures("registry")
def test_a_version_s_batching_is_that_of_its_batch_sizes() -> None:
    found = text_format.Parse(printed("batching", "digits@stable"), BatchingParameters())

    assert list(found.allowed_batch_sizes) == [1, 8]
    assert slipway("batching", "digits", "--threads", 2).exit_code == 2


def test_a_version_that_must_not_be_batched_says_why(registry: Registry, tmp_path: Path) -> None:
    scalar = Signature("serving_default", "predict", (TensorInfo("x", "float32", ()),), ())
    draft = replace(make_draft("scalars"), signatures=(scalar,))
    registry.publish(draft, {"native": make_payload(tmp_path / "payload")})

    result = slipway("batching", "scalars")

    assert result.exit_code == 1
    assert "input 'x' of serving_default has no batch dimension" in result.stderr


def test_a_compose_file_follows_the_registry_where_it_lies(registry: Registry) -> None:
    file = YAML(typ="safe").load(printed("compose", "--model", "digits", "--label", "stable", "--memory", "6g"))

    mounts = file["services"]["agent"]["volumes"]
    assert {"source": registry.store.uri, "target": "/registry", "read_only": True}.items() <= mounts[1].items()
    assert file["services"]["agent"]["command"][-3:] == ["--registry=/registry", "--model=digits", "--label=stable"]
    assert file["services"]["tf-serving"]["deploy"]["resources"]["limits"] == {"memory": "6g"}


def test_a_compose_file_for_a_bucket_needs_no_bucket() -> None:
    file = YAML(typ="safe").load(printed("compose", "--registry", "s3://models/prefix"))

    assert file["services"]["agent"]["command"][-1] == "--registry=s3://models/prefix"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--memory", "much"], 2),
        (["--registry", "nowhere"], 1),
        (["--registry", "s3://models", "--model", "../etc"], 1),
        (["--registry", "s3://models", "--label", "Stable!"], 1),
        (["--registry", "s3://models", "--label", "stable", "--gateway"], 2),
    ],
)
def test_a_compose_file_of_what_cannot_be_is_not_printed(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = slipway("compose", *arguments)

    assert (result.exit_code, result.stdout) == (code, "")


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("what", "more"),
    [
        (["tf-serving"], {"registry", "models"}),
        (["batching"], set()),
        (["batching", "digits:1"], {"model", "version"}),
        (["monitoring"], {"path"}),
        (["compose"], {"registry"}),
        (["compose", "--gateway"], {"registry"}),
    ],
)
def test_json_is_one_document_with_the_content(what: list[str], more: set[str]) -> None:
    document: dict[str, Any] = json.loads(printed(*what, "--json"))

    assert {*document} == {"what", "content", *more}
    assert document["what"] == what[0]
    assert document["content"] == printed(*what)


def test_errors_are_json_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_REGISTRY", str(tmp_path / "none"))
    failing: list[Callable[[], click.testing.Result]] = [
        lambda: slipway("tf-serving", "--json"),
        lambda: slipway("compose", "--json"),
        lambda: slipway("batching", "digits", "--json"),
    ]
    for fails in failing:
        assert json.loads(fails().stdout)["error"]["class"] == "NotFoundError"
