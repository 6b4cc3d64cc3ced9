"""What Prometheus is told of a sync agent."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.sync.sync_report import AgentReport, ModelReport, VersionReport
from tests.support.watched_agents import REPORT


def samples(metrics: SyncMetrics, report: AgentReport = REPORT) -> dict[tuple[str, ...], float]:
    """Every sample of the agent's own, by its name and the values of its labels, sorted by their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render(report).decode())
        for sample in family.samples
        if sample.name.startswith("slipway_")
    }


def test_what_the_report_tells_is_measured() -> None:
    found = samples(SyncMetrics())

    assert found["slipway_sync_revision", "digits"] == 7
    assert found["slipway_sync_registry_age_seconds",] == 2.5
    assert found["slipway_sync_server_up",] == 1
    assert found["slipway_sync_versions", "digits", "AVAILABLE"] == 1
    assert found["slipway_sync_versions", "digits", "FAILED"] == 1
    assert found["slipway_sync_versions", "digits", "LOADING"] == 0
    assert found["slipway_sync_wanted_version", "canary", "digits"] == 4
    assert found["slipway_sync_serving_version", "canary", "digits"] == 3
    assert found["slipway_sync_given_up_version", "canary", "digits"] == 4


def test_what_was_given_up_is_told_of_the_labels_that_name_it_alone() -> None:
    family = "slipway_sync_given_up_version"
    failed = REPORT.models["digits"].versions[-1]

    def told(wanted: dict[str, int], *versions: VersionReport) -> dict[str, float]:
        report = replace(
            REPORT, models={"digits": ModelReport(8, wanted, {}, versions), "faces": REPORT.models["faces"]}
        )
        return {key[1]: value for key, value in samples(SyncMetrics(), report).items() if key[0] == family}

    assert told({"stable": 3, "canary": 4}, failed) == {"canary": 4}
    assert told({"stable": 4, "canary": 4}, failed) == {"stable": 4, "canary": 4}
    assert told({"stable": 4, "canary": 5}, failed, VersionReport(5, "LOADING")) == {"stable": 4}
    assert told({"stable": 4, "canary": 5}, failed, replace(failed, version=5)) == {"stable": 4, "canary": 5}
    assert told({"stable": 3, "canary": 4}, replace(failed, gave_up=False)) == {}, "a download is tried again"
    assert told({"stable": 3}, failed) == {}


@pytest.mark.parametrize(("ready", "told"), [(None, None), (False, 0), (True, 1)])
def test_whether_the_server_is_ready_is_told_once_it_was_looked_at(ready: bool | None, told: float | None) -> None:
    assert samples(SyncMetrics(), replace(REPORT, ready=ready)).get(("slipway_sync_ready",)) == told


def test_before_the_first_look_there_is_no_age_of_the_registry() -> None:
    found = samples(SyncMetrics(), replace(REPORT, registry_age=None, server_reachable=False))

    assert ("slipway_sync_registry_age_seconds",) not in found
    assert found["slipway_sync_server_up",] == 0


def test_downloads_and_failures_are_counted_from_zero_on() -> None:
    metrics = SyncMetrics()
    before = samples(metrics)

    metrics.downloaded("digits", 1000)
    metrics.downloaded("digits", 24)
    metrics.failed("digits", "load")
    metrics.failed("", "registry")
    found = samples(metrics)

    assert before["slipway_sync_downloaded_bytes_total", "faces"] == 0
    assert before["slipway_sync_failures_total", "registry", ""] == 0
    assert before["slipway_sync_failures_total", "load", "digits"] == 0
    assert found["slipway_sync_downloads_total", "digits"] == 2
    assert found["slipway_sync_downloaded_bytes_total", "digits"] == 1024
    assert found["slipway_sync_failures_total", "load", "digits"] == 1
    assert found["slipway_sync_failures_total", "registry", ""] == 1
    assert found["slipway_sync_failures_total", "download", "digits"] == 0


def test_the_lag_begins_when_a_model_is_first_seen_unsettled_and_ends_when_it_is_settled() -> None:
    now = [100.0]
    metrics = SyncMetrics(clock=lambda: now[0])
    settled = replace(REPORT, models={"digits": ModelReport(8, {"stable": 4}, {"stable": 4})})

    metrics.observe(REPORT)
    now[0] = 130.0
    behind = samples(metrics)
    caught_up = samples(metrics, settled)
    now[0] = 140.0
    metrics.observe(REPORT)
    now[0] = 145.0
    behind_again = samples(metrics)

    assert (behind["slipway_sync_lag_seconds", "digits"], behind["slipway_sync_lag_seconds", "faces"]) == (30, 0)
    assert caught_up["slipway_sync_lag_seconds", "digits"] == 0
    assert behind_again["slipway_sync_lag_seconds", "digits"] == 5


def test_a_server_that_does_not_answer_lags() -> None:
    now = [0.0]
    metrics = SyncMetrics(clock=lambda: now[0])
    down = replace(REPORT, server_reachable=False)
    metrics.observe(down)
    now[0] = 9.0

    assert samples(metrics, down)["slipway_sync_lag_seconds", "faces"] == 9


def test_two_agents_in_one_process_do_not_mix() -> None:
    one, other = SyncMetrics(), SyncMetrics()
    one.downloaded("digits", 5)

    assert samples(other)["slipway_sync_downloads_total", "digits"] == 0
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("slipway")]


def test_names_and_help_texts_follow_the_conventions() -> None:
    metrics = SyncMetrics()
    metrics.failed('a "name"\nof two lines', "disk")
    families = list(text_string_to_metric_families(metrics.render(REPORT).decode()))

    assert all(family.documentation for family in families)
    assert [family.name for family in families if family.type == "counter" and family.name.startswith("slipway")] == [
        "slipway_sync_downloads",
        "slipway_sync_downloaded_bytes",
        "slipway_sync_failures",
    ]
    assert not [family.name for family in families if family.name.endswith("_created")]
    assert "process_resident_memory_bytes" in {family.name for family in families}
    if shutil.which("promtool"):  # the conventions' own linter; the rest of this test stands in for it elsewhere
        command = ["promtool", "check", "metrics"]
        done = subprocess.run(command, input=metrics.render(REPORT), capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
