"""`slipway render prometheus|alerts|grafana`."""

from __future__ import annotations

import json
from typing import Any

import click.testing
import pytest
from ruamel.yaml import YAML

from flows.cli import main


def slipway(*arguments: str) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(main, ["render", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def printed(*arguments: str) -> str:
    result = slipway(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def jobs(*arguments: str) -> dict[str, Any]:
    document = YAML(typ="safe").load(printed("prometheus", *arguments))
    return {job["job_name"]: job for job in document["scrape_configs"]}


def test_prometheus_is_told_of_each_target() -> None:
    named = ("--tf-serving", "a:8501", "--tf-serving", "b:8501", "--sync", "a:8502", "--gateway", "g:8503")
    found = jobs(*named, "--envoy", "g:9901")

    assert {job: config["static_configs"][0]["targets"] for job, config in found.items()} == {
        "tf-serving": ["a:8501", "b:8501"],
        "slipway-sync": ["a:8502"],
        "slipway-gateway": ["g:8503"],
        "envoy": ["g:9901"],
    }


def test_prometheus_may_find_targets_by_itself() -> None:
    assert len(jobs("--kubernetes", "models")) == 4
    assert len(jobs("--kubernetes", "models", "--no-gateway")) == 2
    assert jobs("--targets-from", "/etc/targets")["tf-serving"]["file_sd_configs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--tf-serving HOST:8501"),
        (("--kubernetes", "models", "--targets-from", "x"), "one of the three"),
        (("--tf-serving", "http://a:8501"), "expected HOST:PORT"),
        (("--tf-serving", "a:8501", "--envoy", "g:1", "--no-gateway"), "--no-gateway"),
    ],
)
def test_targets_that_make_no_sense_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = slipway("prometheus", *arguments)

    assert result.exit_code == 1
    assert message in result.stderr


def test_rules_have_the_thresholds_that_were_given() -> None:
    content = printed("alerts", "--latency", "0.2", "--error-rate", "0.05", "--rollout-hours", "2", "--requests", "9")

    assert "p99_5m > 0.2" in content
    assert "ratio5m > 0.05" in content
    assert "for: 2h" in content
    assert ">= 9" in content
    assert "envoy" not in printed("alerts", "--no-gateway")


def test_a_threshold_that_means_nothing_is_refused() -> None:
    result = slipway("alerts", "--latency=-1", "--json")

    assert result.exit_code == 1
    assert "latency" in json.loads(result.stdout)["error"]["message"]


@pytest.mark.parametrize("what", ["alerts", "grafana", "prometheus"])
def test_json_has_the_same_content(what: str) -> None:
    options = ("--tf-serving", "a:8501") if what == "prometheus" else ()

    document = json.loads(printed(what, *options, "--json"))

    assert document["what"] == what
    assert document["content"] == printed(what, *options)


def test_the_dashboard_is_json_as_it_is() -> None:
    assert json.loads(printed("grafana"))["title"].startswith("Slipway")
    assert "slipway_gateway_" not in printed("grafana", "--no-gateway")
