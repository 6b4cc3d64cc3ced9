"""What is rendered, in a real Prometheus that asks a model server and a sync agent at work."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_registry.serving.monitoring import alerts, dashboard, monitoring_config, prometheus_config, recording_rules
from model_registry.serving.monitoring.dashboard_panels import rows
from model_registry.serving.monitoring.prometheus_config import Scraping
from tests.support.fixtures_model_server import StartServer
from tests.support.fixtures_prometheus import StartPrometheus
from tests.support.model_server_processes import RunningServer
from tests.support.prometheus_server import PrometheusServer
from tests.support.served_models import answered_version
from tests.support.sync_bench import Agent, SyncBench

pytestmark = pytest.mark.xdist_group("model_server")


@dataclass
class Watched:
    """A server, its agent, and who watches them."""

    bench: SyncBench
    server: RunningServer
    agent: Agent
    prometheus: PrometheusServer

    def ask(self, *, good: int = 0, bad: int = 0) -> None:
        """Sends requests, of which some have rows that the model does not take."""
        for _ in range(good):
            assert answered_version(self.server, "digits", "stable") == 1
        for _ in range(bad):
            status, _ = self.server.post("/v1/models/digits/labels/stable:predict", {"inputs": [[1.0, 2.0, 3.0]]})
            assert status == 400


@pytest.fixture
def watched(
    sync_bench: SyncBench, model_server: StartServer, start_prometheus: StartPrometheus, tmp_path: Path
) -> Watched:
    """Version 1 is served as `stable`; every target was asked once at least."""
    sync_bench.stable()
    sync_bench.prepare()
    (tmp_path / "monitoring.config").write_text(monitoring_config.config())
    flags = {"monitoring_config_file": tmp_path / "monitoring.config", "max_num_load_retries": 0}
    server = model_server(sync_bench.config_file, **flags)
    agent = sync_bench.agent(server=server.url)
    agent.serves({"stable": 1})
    scraping = Scraping(
        {
            "tf-serving": (f"127.0.0.1:{server.rest_port}",),
            "slipway-sync": (agent.url.removeprefix("http://"),),
        },
        rules=(str(tmp_path / "rules.yaml"),),
        interval=1,
    )
    (tmp_path / "rules.yaml").write_text(alerts.to_text())
    prometheus = start_prometheus(prometheus_config.to_text(scraping))
    prometheus.until("count(up == 1) == 2", what="both targets answer")
    return Watched(sync_bench, server, agent, prometheus)


def test_the_rules_see_what_a_server_and_its_agent_do(watched: Watched) -> None:
    prometheus = watched.prometheus
    watched.ask(good=5, bad=1)
    prometheus.until(
        'count(:tensorflow:serving:request_count{model_name="digits"}) == 2', what="both statuses were counted once"
    )
    watched.ask(good=10, bad=2)

    (rate,) = prometheus.until(f'{recording_rules.ERRORS}{{model="digits"}} > 0', what="errors are counted")
    assert 0.05 < rate.value < 0.5
    by_status = prometheus.until(
        f'{recording_rules.REQUESTS_BY_STATUS}{{model="digits"}} > 0', lambda found: len(found) == 2
    )
    assert {sample.labels["status"] for sample in by_status} == {"OK", "INVALID_ARGUMENT"}
    for name in (recording_rules.P50, recording_rules.P99):
        (latency,) = prometheus.until(f'{name}{{model="digits"}}', what="there is a latency")
        # The model multiplies two numbers: microseconds taken for seconds would be far away from that.
        assert 1e-5 < latency.value < 5

    assert prometheus.value('slipway_sync_serving_version{model="digits", label="stable"}') == 1
    assert prometheus.value('slipway_sync_versions{model="digits", state="FAILED"}') == 0
    assert prometheus.value("slipway_sync_server_up") == 1
    assert prometheus.value("slipway_sync_registry_age_seconds") < 60


def test_no_rule_fails_over_what_there_is(watched: Watched) -> None:
    watched.ask(good=3, bad=3)
    prometheus = watched.prometheus
    prometheus.until('slipway_sync_lag_seconds{model="digits"}')

    def evaluated() -> list[dict[str, str]]:
        groups = prometheus.api("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    prometheus.until(
        f"{recording_rules.REQUESTS} >= 0", lambda _: all(rule["health"] != "unknown" for rule in evaluated())
    )
    failed = {rule["name"]: rule["lastError"] for rule in evaluated() if rule["health"] != "ok"}

    assert failed == {}
    assert len(evaluated()) == len(alerts.alerts()) + len(recording_rules.recordings())


def test_what_goes_wrong_is_noticed(watched: Watched) -> None:
    prometheus = watched.prometheus
    broken = watched.bench.publish(write=_without_variables)
    watched.bench.promote(broken)
    watched.agent.fails(broken)

    def pending(name: str) -> str:
        return f'ALERTS{{alertname="{name}", instance="{watched.agent.url.removeprefix("http://")}"}}'

    prometheus.until(pending("SlipwayVersionFailed"), what="a version that failed is noticed")
    assert prometheus.value('sum(slipway_sync_failures_total{model="digits", kind="load"})') >= 1
    prometheus.until('slipway_sync_lag_seconds{model="digits"} > 0', what="it lags")

    watched.server.kill()
    prometheus.until(pending("SlipwayServerDown"), what="the agent's word of the server")
    prometheus.until('ALERTS{alertname="SlipwayServerDown", job="tf-serving"}', what="its metrics are gone")


def test_every_panel_shows_what_it_asks_for(watched: Watched) -> None:
    prometheus = watched.prometheus
    watched.ask(good=3, bad=1)
    prometheus.until('count(:tensorflow:serving:request_count{model_name="digits"}) == 2')
    watched.ask(good=3, bad=1)
    prometheus.until(f"{recording_rules.P99} > 0")
    prometheus.until(f"{recording_rules.ERRORS} > 0")
    empty_here = {query.expression for row in rows() for panel in row.panels for query in panel.queries} - {
        query.expression for row in rows(gateway=False) for panel in row.panels for query in panel.queries
    }
    shown = json.loads(dashboard.to_text())

    for panel in shown["panels"]:
        for target in panel.get("targets", ()):
            found = prometheus.query(target["expr"].replace("$model", ".*"))
            if target["expr"] in empty_here or "ALERTS" in target["expr"]:
                continue  # they are about gateways, of which there are none here, or about what does not fire
            assert found, panel["title"]
            assert all(math.isfinite(sample.value) for sample in found), panel["title"]
            for label in _labels(target["legendFormat"]):
                assert any(label in sample.labels for sample in found), (panel["title"], label)


def test_what_was_recorded_is_there_when_prometheus_starts_again(watched: Watched) -> None:
    prometheus = watched.prometheus
    prometheus.until('slipway_sync_revision{model="digits"}')
    before = prometheus.query('slipway_sync_revision{model="digits"}')[0].at
    pid = prometheus.pid

    prometheus.stop()
    prometheus.restart()

    assert prometheus.pid != pid
    assert prometheus.query('slipway_sync_revision{model="digits"}', at=before)


def _labels(legend: str) -> set[str]:
    return {*re.findall(r"\{\{(\w+)\}\}", legend)}


def _without_variables(staged: Path) -> Path:
    payload = staged / "payload"
    payload.mkdir()
    (payload / "saved_model.pb").write_bytes(b"no graph")
    return payload
