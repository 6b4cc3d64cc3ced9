"""What a dashboard of a fleet shows: what was asked, what came of it, and which version answered. Pure.

It reads the recorded series of `slipway render alerts`, so that it shows what alerts are decided by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model_registry.serving.monitoring import recording_rules as recorded

_OF = '{model=~"$model"}'
_VERSION = "{{model}}:{{version}} {{label}}"


@dataclass(frozen=True)
class Query:
    """A line, or lines, of a panel.

    Attributes:
        expression: PromQL; `$model` is a regular expression of the models that are shown.
        legend: Grafana's template of a line's name.
    """

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A graph.

    Attributes:
        title: Its title.
        says: What it shows, for who points at its `i`.
        unit: Grafana's name of the unit: `s`, `percentunit`, `percent`, `reqps`, `short`.
        queries: What is in it.
        width: Of the dashboard's 24 columns.
        steps: Whether values hold until they change, as a weight does.
        kind: Grafana's kind of panel.
    """

    title: str
    says: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 12
    steps: bool = False
    kind: str = "timeseries"


@dataclass(frozen=True)
class Row:
    """Panels that belong together.

    Attributes:
        title: What they are about.
        panels: From left to right, and down.
    """

    title: str
    panels: tuple[Panel, ...]


def rows(*, gateway: bool = True) -> tuple[Row, ...]:
    """All that is shown.

    Args:
        gateway: Whether there are gateways.
    """
    shown = [
        Row("Now", tuple(_now())),
        Row("Requests by model, as TensorFlow Serving counts them", tuple(_models())),
    ]
    if gateway:
        shown.append(Row("Requests by version, as the gateways count them", tuple(_versions())))
    shown.append(Row("Versions", tuple(_fleet(gateway=gateway))))
    return tuple(shown)


def _now() -> Iterator[Panel]:
    yield Panel(
        "Alerts that fire",
        "What slipway render alerts watches for.",
        "short",
        (Query('sum by (alertname, severity, model) (ALERTS{alertname=~"Slipway.*", alertstate="firing"})', ""),),
        kind="table",
    )
    yield Panel(
        "Who can be asked",
        "How many targets of each job Prometheus gets answers of.",
        "short",
        (Query('sum by (job) (up{job=~"tf-serving|slipway-sync|slipway-gateway|envoy"})', "{{job}}"),),
        kind="stat",
    )


def _models() -> Iterator[Panel]:
    yield Panel(
        "Requests",
        "A second, over five minutes. A model name that nobody knows is one that clients ask for in vain.",
        "reqps",
        (Query(f"{recorded.REQUESTS}{_OF} / {recorded.SECONDS}", "{{model}}"),),
    )
    yield Panel(
        "Error rate",
        "Which share of the requests ended otherwise than OK.",
        "percentunit",
        (Query(f"{recorded.ERRORS}{_OF}", "{{model}}"),),
    )
    yield Panel(
        "Errors by status",
        "A second. INVALID_ARGUMENT: clients send what the model does not take. UNAVAILABLE: the queue is full.",
        "reqps",
        (
            Query(
                f'{recorded.REQUESTS_BY_STATUS}{{model=~"$model", status!="OK"}} / {recorded.SECONDS}',
                "{{model}} {{status}}",
            ),
        ),
    )
    yield Panel(
        "Latency",
        "Inside the server, of requests that were answered. Its buckets grow by 1.8: a value may be off by as much.",
        "s",
        (
            Query(f"{recorded.P99}{_OF}", "{{model}} p99"),
            Query(f"{recorded.P50}{_OF}", "{{model}} p50"),
        ),
    )


def _versions() -> Iterator[Panel]:
    yield Panel(
        "Requests by version",
        "A second, over five minutes.",
        "reqps",
        (Query(f"{recorded.VERSION_REQUESTS}{_OF} / {recorded.SECONDS}", _VERSION),),
    )
    yield Panel(
        "Error rate by version",
        "REST's statuses other than 2xx, and gRPC's other than OK.",
        "percentunit",
        (Query(f"{recorded.VERSION_ERRORS}{_OF}", _VERSION),),
    )
    yield Panel(
        "Latency by version",
        "As the gateways see it: network and queue included, errors too.",
        "s",
        (
            Query(f"{recorded.VERSION_P99}{_OF}", f"{_VERSION} p99"),
            Query(f"{recorded.VERSION_P50}{_OF}", f"{_VERSION} p50"),
        ),
    )
    yield Panel(
        "Weight of the canary",
        "In force at the gateway that gives it the least and the most, and what the registry wants.",
        "percent",
        (
            Query(f"min by (model) (slipway_gateway_weight{_OF})", "{{model}} least"),
            Query(f"max by (model) (slipway_gateway_weight{_OF})", "{{model}} most"),
            Query(f"max by (model) (slipway_gateway_wanted_weight{_OF})", "{{model}} wanted"),
        ),
        steps=True,
    )


def _fleet(*, gateway: bool) -> Iterator[Panel]:
    yield Panel(
        "Versions that the fleet serves",
        "How many servers answer under each label with each version.",
        "short",
        (Query(f'count_values by (model, label) ("version", slipway_sync_serving_version{_OF})', _VERSION),),
        steps=True,
    )
    lag = [Query(f"max by (model) (slipway_sync_lag_seconds{_OF})", "{{model}} servers")]
    if gateway:
        lag.append(Query(f"max by (model) (slipway_gateway_lag_seconds{_OF})", "{{model}} gateways"))
    yield Panel(
        "Lag",
        "Since when the slowest does otherwise than the registry wants.",
        "s",
        tuple(lag),
    )
    yield Panel(
        "Failures",
        "Downloads, loads and disk operations of agents that failed, in five minutes.",
        "short",
        (
            Query(
                "sum by (model, kind) "
                '(increase(slipway_sync_failures_total{model=~"$model|", kind=~"download|load|disk"}[5m]))',
                "{{model}} {{kind}}",
            ),
        ),
    )
    yield Panel(
        "Versions that failed",
        "At how many servers; their labels stay where they were.",
        "short",
        (Query('sum by (model) (slipway_sync_versions{model=~"$model", state="FAILED"})', "{{model}}"),),
        steps=True,
    )
    age = [Query("max(slipway_sync_registry_age_seconds)", "servers")]
    if gateway:
        age.append(Query("max(slipway_gateway_registry_age_seconds)", "gateways"))
    yield Panel(
        "Since the registry was read",
        "By the agent that has not for the longest time.",
        "s",
        tuple(age),
        width=24,
    )
