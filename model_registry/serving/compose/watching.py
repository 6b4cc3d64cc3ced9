"""Prometheus, and what it is told. Pure."""

from __future__ import annotations

from textwrap import indent

from model_registry.serving.compose.deployment import CANARY, STABLE, Deployment, agent_of, server_of
from model_registry.serving.compose.gateway import AGENT_PORT
from model_registry.serving.compose.writing import CONFINED, config, quoted
from model_registry.serving.monitoring import alerts, prometheus_config

PROMETHEUS_IMAGE = "prom/prometheus:v2.55.1"

_CONFIG = "/etc/prometheus/slipway.yml"
_RULES = "/etc/prometheus/slipway-rules.yaml"


def services() -> str:
    """The service."""
    return f"""\
  # What a rollout is judged by: `slipway rollout ... --prometheus http://127.0.0.1:9090`.
  prometheus:
    image: {PROMETHEUS_IMAGE}
    restart: unless-stopped
    command:
      - "--config.file={_CONFIG}"
      - "--storage.tsdb.path=/prometheus"
      - "--storage.tsdb.retention.time=15d"
    configs:
      - {{source: prometheus, target: {_CONFIG}}}
      - {{source: rules, target: {_RULES}}}
    volumes:
      - prometheus:/prometheus
    ports:
      - "127.0.0.1:9090:9090"
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", {quoted("http://127.0.0.1:9090/-/ready")}]
      interval: 10s
      timeout: 6s
      start_period: 1m
    deploy:
      resources:
        limits: {{memory: 1g}}
{indent(CONFINED, "    ")}"""


def files(deployment: Deployment) -> str:
    """Whom it asks, and what is worth a call."""
    metrics = deployment.fleet_file().gateway.metrics
    scraping = prometheus_config.Scraping(
        targets={
            "tf-serving": tuple(f"{server_of(fleet)}:8501" for fleet in (STABLE, CANARY)),
            "slipway-sync": tuple(f"{agent_of(fleet)}:8502" for fleet in (STABLE, CANARY)),
            "slipway-gateway": (f"gateway:{AGENT_PORT}",),
            "envoy": (f"gateway:{metrics}",),
        },
        rules=(_RULES,),
    )
    return config("prometheus", prometheus_config.to_text(scraping)) + config("rules", alerts.to_text())
