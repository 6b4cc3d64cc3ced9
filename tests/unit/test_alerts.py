"""Alerts, the rules' file and their runbooks, as far as no Prometheus is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from model_registry.errors import InvalidInputError
from model_registry.serving.monitoring import alerts
from model_registry.serving.monitoring.alert import Alert, Thresholds
from model_registry.serving.monitoring.prometheus_config import GATEWAY_JOBS, JOBS
from model_registry.serving.monitoring.recording_rules import recordings

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"


def named(name: str, thresholds: Thresholds | None = None) -> Alert:
    return next(alert for alert in alerts.alerts(thresholds) if alert.name == name)


def test_every_alert_has_a_runbook_under_its_name_and_no_runbook_is_of_none() -> None:
    headings = re.findall(r"^### (Slipway\w+)$", PAGE.read_text(), re.MULTILINE)

    assert sorted(headings) == sorted(alert.name for alert in alerts.alerts())


def test_an_alert_links_to_its_runbook() -> None:
    assert alerts.runbook(named("SlipwayServerDown")) == "docs/monitoring.md#slipwayserverdown"
    assert "runbook_url: https://wiki/m#slipwayserverdown" in alerts.to_text(runbooks="https://wiki/m")


def test_an_alert_asks_of_jobs_that_are_scraped() -> None:
    named_jobs = {
        job
        for alert in alerts.alerts()
        for jobs in re.findall(r'job=~?"([^"]+)"', alert.expression)
        for job in jobs.split("|")
    }

    assert named_jobs == {*JOBS, *GATEWAY_JOBS}


def test_without_gateways_nothing_is_asked_of_them() -> None:
    text = alerts.to_text(gateway=False)

    assert "envoy" not in text
    assert "slipway_gateway" not in text
    assert "absent" in text


def test_thresholds_are_what_expressions_hold_against() -> None:
    limits = Thresholds(latency=0.25, error_rate=0.05, requests=7, failures=3, lag=60, gateway_lag=30, registry_age=90)

    assert "p99_5m > 0.25" in named("SlipwayModelLatencyHigh", limits).expression
    assert 'p99_5m{label!~"-.*"} > 0.25' in named("SlipwayVersionLatencyHigh", limits).expression
    for name in ("SlipwayModelErrorsHigh", "SlipwayVersionErrorsHigh"):
        assert re.search(r"ratio5m(\{.*\})? > 0.05\n", named(name, limits).expression)
        assert named(name, limits).expression.endswith(">= 7")
        assert "More than 5 %" in named(name, limits).means
    for name in ("SlipwayModelOnlyErrors", "SlipwayGatewayOnlyErrors"):
        assert ">= 3" in named(name, limits).expression
    assert "> 60" in named("SlipwaySyncLagging", limits).expression
    assert named("SlipwayServerNotStarted", limits).lasting == "60s"
    assert "> 30" in named("SlipwayGatewayLagging", limits).expression
    assert "> 90" in named("SlipwaySyncRegistryUnreadable", limits).expression
    assert "> 90" in named("SlipwayGatewayRegistryUnreadable", limits).expression


@pytest.mark.parametrize(("hours", "lasting"), [(24, "24h"), (1, "1h"), (0.5, "1800s"), (1.5, "5400s")])
def test_a_rollout_may_stand_as_long_as_it_is_told_to(hours: float, lasting: str) -> None:
    assert named("SlipwayCanaryStandsLong", Thresholds(rollout_hours=hours)).lasting == lasting


@pytest.mark.parametrize(
    ("threshold", "value"),
    [("latency", 0), ("latency", -1), ("lag", float("nan")), ("lag", float("inf")), ("error_rate", 1), ("requests", 0)],
)
def test_a_threshold_that_means_nothing_is_refused(threshold: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=threshold.replace("_", ".")):
        Thresholds(**{threshold: value})


def test_what_wakes_somebody_is_told_from_what_can_wait() -> None:
    assert {alert.name for alert in alerts.alerts() if alert.severity == "critical"} == {
        "SlipwayEnvoyDown",
        "SlipwayGatewayEnvoyDown",
        "SlipwayGatewayOnlyErrors",
        "SlipwayModelErrorsHigh",
        "SlipwayModelOnlyErrors",
        "SlipwayMostAgentsDown",
        "SlipwayServerDown",
        "SlipwayTargetsMissing",
        "SlipwayVersionErrorsHigh",
    }


def test_the_file_is_yaml_of_all_rules_in_an_order_in_which_each_reads_what_is_there() -> None:
    groups = YAML(typ="safe").load(alerts.to_text())["groups"]
    recorded, watched = (group["rules"] for group in groups)

    assert [rule["record"] for rule in recorded] == [one.name for one in recordings()]
    assert [rule["expr"].rstrip("\n") for rule in recorded] == [one.expression for one in recordings()]
    assert [rule["alert"] for rule in watched] == [alert.name for alert in alerts.alerts()]
    known: set[str] = set()
    for rule in (*recorded, *watched):
        assert {*re.findall(r"(?:model|model_status|version):slipway_\w+:\w+", rule["expr"])} <= known
        known.add(rule.get("record", ""))


def test_units_are_made_seconds_where_they_are_recorded_and_nowhere_else() -> None:
    for recording in recordings():
        if "tensorflow" in recording.expression and "quantile" in recording.expression:
            assert recording.expression.endswith("/ 1e6 >= 0")
        if "envoy" in recording.expression and "quantile" in recording.expression:
            assert recording.expression.endswith("/ 1e3 >= 0")
    for alert in alerts.alerts():
        assert "tensorflow" not in alert.expression
        assert "envoy_cluster" not in alert.expression
