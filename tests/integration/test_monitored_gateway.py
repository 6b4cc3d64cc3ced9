"""What is rendered, in a real Prometheus that asks a real Envoy and the agent beside it."""

from __future__ import annotations

import math
from pathlib import Path

import grpc
import pytest

from model_registry.serving.monitoring import alerts, prometheus_config
from model_registry.serving.monitoring import recording_rules as recorded
from model_registry.serving.monitoring.dashboard_panels import rows
from model_registry.serving.monitoring.prometheus_config import Scraping
from tests.support.fixtures_prometheus import StartPrometheus
from tests.support.gateway_bench import GatewayBench, GatewayProcess
from tests.support.prometheus_server import PrometheusServer

pytestmark = pytest.mark.xdist_group("gateway")

_SHOWN = {query.expression for row in rows() for panel in row.panels for query in panel.queries} - {
    query.expression for row in rows(gateway=False) for panel in row.panels for query in panel.queries
}
_PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture
def agent(gateway_bench: GatewayBench) -> GatewayProcess:
    """A quarter of the requests goes to version 2."""
    gateway_bench.sync.stable()
    gateway_bench.envoy.start()
    agent = gateway_bench.agent()
    gateway_bench.begin(gateway_bench.sync.publish())
    agent.shares(25, gateway_bench.shift(1))
    return agent


@pytest.fixture
def prometheus(
    gateway_bench: GatewayBench, agent: GatewayProcess, start_prometheus: StartPrometheus, tmp_path: Path
) -> PrometheusServer:
    """It has asked both."""
    (tmp_path / "rules.yaml").write_text(alerts.to_text())
    targets = {
        "slipway-gateway": (agent.url.removeprefix("http://"),),
        "envoy": (gateway_bench.envoy.admin_url.removeprefix("http://"),),
    }
    started = start_prometheus(
        prometheus_config.to_text(Scraping(targets, rules=(str(tmp_path / "rules.yaml"),), interval=1))
    )
    started.until("count(up == 1) == 2", what="both targets answer")
    return started


def _call(bench: GatewayBench) -> None:
    """A gRPC request that fails: the servers of the bench speak HTTP/1.1 alone."""
    with grpc.insecure_channel(bench.envoy.target) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(_PREDICT)(b"x", metadata=(("slipway-model", "digits"),), timeout=10)


def test_requests_and_errors_of_each_version_are_told_apart(
    gateway_bench: GatewayBench, prometheus: PrometheusServer
) -> None:
    for count in (1, 2):  # what is counted for the first time is no increase yet
        for _ in range(40):
            assert gateway_bench.get()[0] == 200
        for _ in range(15):
            _call(gateway_bench)
        prometheus.until(
            'sum(envoy_cluster_grpc_failure{model="digits"}) + '
            'sum(envoy_cluster_upstream_rq_xx{model="digits", api="rest"}) '
            f">= {55 * count}",
            what="all were counted",
        )

    prometheus.until(f"{recorded.VERSION_ERRORS} > 0", lambda found: len(found) == 2, what="errors of both versions")
    requests = prometheus.query(recorded.VERSION_REQUESTS)
    assert {(one.labels["model"], one.labels["label"], one.labels["version"]) for one in requests} == {
        ("digits", "stable", "1"),
        ("digits", "canary", "2"),
    }
    for one in prometheus.query(recorded.VERSION_ERRORS):
        assert 0 < one.value < 1
    for name in (recorded.VERSION_P50, recorded.VERSION_P99):
        found = prometheus.until(name, lambda found: len(found) == 2, what="latencies of both versions")
        assert all(0 <= one.value < 5 for one in found)
    for expression in _SHOWN:
        shown = prometheus.query(expression.replace("$model", ".*"))
        assert shown, expression
        assert all(math.isfinite(one.value) for one in shown), expression
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}


def test_a_gateway_that_fails_is_noticed(
    gateway_bench: GatewayBench, agent: GatewayProcess, prometheus: PrometheusServer
) -> None:
    assert prometheus.until("slipway_gateway_weight")[0].value == 25
    prometheus.until('ALERTS{alertname="SlipwayCanaryStandsLong"}', what="a rollout under way")

    gateway_bench.envoy.kill()
    for name in ("SlipwayGatewayEnvoyDown", "SlipwayEnvoyDown"):
        prometheus.until(f'ALERTS{{alertname="{name}"}}', what=f"{name} is on")
    prometheus.until("slipway_gateway_lag_seconds > 0", what="it lags")

    agent.kill()
    prometheus.until('ALERTS{alertname="SlipwayAgentDown", job="slipway-gateway"}', what="its agent is gone")
