"""The rules and configurations that are rendered, in the hands of Prometheus' own tool."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from model_registry.serving.monitoring import alerts, prometheus_config
from model_registry.serving.monitoring.alert import Thresholds
from model_registry.serving.monitoring.prometheus_config import Scraping
from model_registry.serving.monitoring.recording_rules import recordings
from tests.support.alert_cases import CASES, THRESHOLDS, Case

NAMES = sorted(alert.name for alert in alerts.alerts())


def checked(promtool: Path, *arguments: object) -> str:
    found = subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


def checked_cases(promtool: Path, folder: Path, cases: list[dict[str, Any]]) -> None:
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": cases}
    (folder / "tests.yaml").write_text(json.dumps(tests))  # which is YAML, too
    checked(promtool, "test", "rules", folder / "tests.yaml")


def needed_rules(text: str, alert: str) -> str:
    """An alert's rule and what is recorded for it: promtool works out all rules that it is given, at every step."""
    groups = YAML(typ="safe").load(text)["groups"]
    expressions = {rule.get("alert") or rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}
    needed, new = set[str](), {alert}
    while new:
        needed |= new
        new = {name for name in expressions if any(name in expressions[user] for user in new)} - needed
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if (rule.get("alert") or rule["record"]) in needed]
    return json.dumps({"groups": groups})


def firing(case: Case) -> dict[str, Any]:
    severity = next(alert.severity for alert in alerts.alerts() if alert.name == case.alert)
    return {
        "name": f"{case.alert}: {case.says}",
        "interval": "15s",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
                "eval_time": case.at,
                "exp_samples": [
                    {"labels": _series(case.alert, severity, labels), "value": 1} for labels in case.firing
                ],
            }
        ],
    }


def _series(alert: str, severity: str, labels: Any) -> str:
    known = {"alertname": alert, "alertstate": "firing", "severity": severity, **labels}
    return "ALERTS{" + ", ".join(f'{name}="{value}"' for name, value in known.items()) + "}"


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert sorted({case.alert for case in CASES if case.firing}) == NAMES
    assert sorted({case.alert for case in CASES if not case.firing}) == NAMES


@pytest.mark.parametrize("alert", NAMES)
def test_an_alert_fires_when_it_should_and_only_then(alert: str, promtool: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(needed_rules(alerts.to_text(THRESHOLDS), alert))

    checked_cases(promtool, tmp_path, [firing(case) for case in CASES if case.alert == alert])


@pytest.mark.parametrize("case", [case for case in CASES if case.firing], ids=lambda case: f"{case.alert}: {case.says}")
def test_what_an_alert_says_it_knows(case: Case) -> None:
    alert = next(alert for alert in alerts.alerts() if alert.name == case.alert)
    named = {*re.findall(r"\$labels\.(\w+)", " ".join((alert.summary, alert.means, alert.do)))}

    for labels in case.firing:
        assert named - case.blank <= labels.keys()


def test_a_person_reads_what_is_wrong_and_what_to_do(promtool: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(alerts.to_text(runbooks="https://wiki.example.com/slipway"))
    case = next(case for case in CASES if case.alert == "SlipwayModelErrorsHigh" and case.firing)
    test = firing(case) | {
        "promql_expr_test": [],
        "alert_rule_test": [
            {
                "eval_time": "20m",
                "alertname": case.alert,
                "exp_alerts": [
                    {
                        "exp_labels": {"model": "digits", "severity": "critical"},
                        "exp_annotations": {
                            "summary": "5% of the requests to digits fail",
                            "description": "More than 1 % of the requests end otherwise than OK, over the whole "
                            "fleet. INVALID_ARGUMENT counts: a new version that takes other inputs than its clients "
                            "send looks like that. See which status it is (dashboard, Errors by status), and whether "
                            "it began with a promotion: slipway history digits. If so: slipway rollback digits stable, "
                            "or during a rollout slipway rollout digits --abort. UNAVAILABLE is a full queue: more "
                            "servers, or fewer clients.",
                            "runbook_url": "https://wiki.example.com/slipway#slipwaymodelerrorshigh",
                        },
                    }
                ],
            }
        ],
    }

    checked_cases(promtool, tmp_path, [test])


@pytest.mark.parametrize("gateway", [True, False])
@pytest.mark.parametrize(
    "thresholds",
    [Thresholds(), Thresholds(latency=0.0125, error_rate=1e-7, requests=1, lag=1e9, rollout_hours=0.5)],
    ids=["usual", "odd"],
)
def test_rules_are_rules(gateway: bool, thresholds: Thresholds, promtool: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(alerts.to_text(thresholds, gateway=gateway))

    found = checked(promtool, "check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")

    assert "SUCCESS" in found


@pytest.mark.parametrize(
    "scraping",
    [
        Scraping({"tf-serving": ("serving-1:8501", "[::1]:8501"), "slipway-sync": ("serving-1:8502",)}),
        Scraping({"envoy": ("gateway:9901",)}, alertmanagers=("127.0.0.1:9093",), interval=1),
        Scraping(folder="targets/", interval=60),
        Scraping(namespace="models", gateway=False),
        Scraping(namespace="models"),
    ],
    ids=["static", "gateway", "files", "pods", "pods and gateways"],
)
def test_a_configuration_is_one(scraping: Scraping, promtool: Path, tmp_path: Path) -> None:
    (tmp_path / prometheus_config.RULES).write_text(alerts.to_text())
    (tmp_path / "targets").mkdir()
    text = prometheus_config.to_text(scraping)
    # Debian builds Prometheus without Kubernetes: how pods are found is left out, what is made of them is not.
    pods = (
        r"    kubernetes_sd_configs:\n      - role: pod\n        namespaces:\n          names:\n            - models\n"
    )
    text, replaced = re.subn(pods, "", text)
    (tmp_path / "prometheus.yml").write_text(text)

    found = checked(promtool, "check", "config", tmp_path / "prometheus.yml")

    assert replaced == (len(scraping.jobs) if scraping.namespace else 0)
    assert f"{len(alerts.alerts()) + len(recordings())} rules found" in found
