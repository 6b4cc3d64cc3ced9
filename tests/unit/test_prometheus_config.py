"""Prometheus' configuration: jobs, how their targets are found, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from model_registry.errors import InvalidInputError
from model_registry.serving.kubernetes.naming import fleet_selector
from model_registry.serving.monitoring import monitoring_config
from model_registry.serving.monitoring.prometheus_config import Scraping, to_text

ALL = {
    "tf-serving": ("serving-1:8501", "[::1]:8501"),
    "slipway-sync": ("serving-1:8502",),
    "slipway-gateway": ("gateway:8503",),
    "envoy": ("gateway:9901",),
}


def jobs(scraping: Scraping) -> dict[str, Any]:
    return {job.pop("job_name"): job for job in YAML(typ="safe").load(to_text(scraping))["scrape_configs"]}


def test_targets_are_asked_where_each_answers() -> None:
    found = jobs(Scraping(ALL))

    assert found == {
        "tf-serving": {
            "metrics_path": monitoring_config.PATH,
            "static_configs": [{"targets": ["serving-1:8501", "[::1]:8501"]}],
        },
        "slipway-sync": {"static_configs": [{"targets": ["serving-1:8502"]}]},
        "slipway-gateway": {"static_configs": [{"targets": ["gateway:8503"]}]},
        "envoy": {"metrics_path": "/stats/prometheus", "static_configs": [{"targets": ["gateway:9901"]}]},
    }


def test_a_job_without_a_target_is_left_out() -> None:
    assert list(jobs(Scraping({"tf-serving": ("a:1",), "envoy": ()}))) == ["tf-serving"]


def test_targets_may_be_named_in_files() -> None:
    found = jobs(Scraping(folder="/etc/prometheus/slipway/"))

    assert found["envoy"]["file_sd_configs"] == [
        {"files": ["/etc/prometheus/slipway/envoy.json", "/etc/prometheus/slipway/envoy.yaml"]}
    ]
    assert len(found) == 4


def test_targets_may_be_pods_whose_ports_are_named_after_the_job() -> None:
    found = jobs(Scraping(namespace="models", gateway=False))

    assert list(found) == ["tf-serving", "slipway-sync"]
    assert found["tf-serving"]["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": ["models"]}}]
    assert found["tf-serving"]["relabel_configs"][0] == {
        "source_labels": ["__meta_kubernetes_pod_container_port_name"],
        "regex": "tf-serving",
        "action": "keep",
    }


def test_pods_tell_their_fleet_by_the_label_that_they_are_rendered_with() -> None:
    label = next(name for name, value in fleet_selector("cpu-canary").items() if value == "cpu-canary")
    rule = {
        "source_labels": ["__meta_kubernetes_pod_label_" + re.sub("[^a-z]", "_", label)],
        "target_label": "fleet",
    }

    found = jobs(Scraping(namespace="models"))

    assert [job for job in found if rule in found[job]["relabel_configs"]] == ["tf-serving", "slipway-sync"]


def test_pods_that_have_not_begun_or_have_ended_are_not_asked() -> None:
    (dropped,) = [
        rule for rule in jobs(Scraping(namespace="models"))["envoy"]["relabel_configs"] if "drop" in str(rule)
    ]

    assert dropped["source_labels"] == ["__meta_kubernetes_pod_phase"]
    assert {phase: bool(re.fullmatch(dropped["regex"], phase)) for phase in ("Pending", "Running", "Failed")} == {
        "Pending": True,
        "Running": False,
        "Failed": True,
    }


def test_a_port_of_a_container_may_be_named_after_each_job() -> None:
    # Kubernetes: at most 15 characters, of which one is a letter (RFC 6335).
    assert all(len(job) <= 15 for job in Scraping(folder="x").jobs)


@pytest.mark.parametrize("interval", [1, 15, 60])
def test_a_scrape_ends_before_the_next_begins(interval: int) -> None:
    found = YAML(typ="safe").load(to_text(Scraping(ALL, interval=interval)))["global"]

    assert found["scrape_interval"] == found["evaluation_interval"] == f"{interval}s"
    assert int(found["scrape_timeout"][:-1]) <= interval


def test_rules_and_who_is_told_of_alerts_are_named() -> None:
    found = YAML(typ="safe").load(to_text(Scraping(ALL, rules=("a.yaml", "b.yaml"), alertmanagers=("am:9093",))))

    assert found["rule_files"] == ["a.yaml", "b.yaml"]
    assert found["alerting"]["alertmanagers"] == [{"static_configs": [{"targets": ["am:9093"]}]}]
    assert "rule_files" not in YAML(typ="safe").load(to_text(Scraping(ALL, rules=())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the three"),
        ({"targets": ALL, "folder": "x"}, "one of the three"),
        ({"targets": {"node": ("a:1",)}}, "no such job: node"),
        ({"targets": {"envoy": ("http://a:1",)}}, "expected HOST:PORT"),
        ({"targets": {"envoy": ("a:1/metrics",)}}, "expected HOST:PORT"),
        ({"targets": {"envoy": ("a",)}}, "expected HOST:PORT"),
        ({"targets": {"envoy": ("a:0",)}}, "expected HOST:PORT"),
        ({"targets": {"envoy": ("a:65536",)}}, "expected HOST:PORT"),
        ({"targets": {"envoy": ("a:1\nb:2",)}}, "expected HOST:PORT"),
        ({"targets": ALL, "alertmanagers": ("am",)}, "expected HOST:PORT"),
        ({"namespace": "Models"}, "no name of a Kubernetes namespace"),
        ({"targets": ALL, "interval": 61}, "expected 1 to 60"),
        ({"targets": ALL, "interval": 0}, "expected 1 to 60"),
    ],
)
def test_what_cannot_be_asked_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Scraping(**options)
