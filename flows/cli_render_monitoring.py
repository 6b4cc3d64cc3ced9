"""`slipway render prometheus|alerts|grafana`: prints what watches a fleet."""

from __future__ import annotations

import sys
from typing import Any

import click

from flows.command import json_option, print_json, reporting_errors
from model_registry.errors import InvalidInputError

_without_gateway = click.option(
    "--no-gateway",
    "without_gateway",
    is_flag=True,
    help="There are no gateways: nothing of Envoy, versions and weights.",
)


@click.command()
@click.option("--tf-serving", metavar="HOST:PORT", multiple=True, help="REST of a server; may be given again.")
@click.option("--sync", metavar="HOST:PORT", multiple=True, help="A `slipway sync`; may be given again.")
@click.option("--gateway", metavar="HOST:PORT", multiple=True, help="A `slipway gateway`; may be given again.")
@click.option(
    "--envoy", metavar="HOST:PORT", multiple=True, help="A gateway's Envoy, its port for metrics, 9902; likewise."
)
@click.option(
    "--targets-from",
    "folder",
    metavar="DIR",
    help="Instead: a directory of JOB.json or JOB.yaml files that name targets, which Prometheus watches.",
)
@click.option("--kubernetes", "namespace", metavar="NAMESPACE", help="Instead: the pods of a namespace.")
@_without_gateway
@click.option(
    "--rules",
    metavar="FILE",
    multiple=True,
    default=("slipway-rules.yaml",),
    show_default=True,
    help="What `slipway render alerts` prints, as Prometheus sees it; may be given again.",
)
@click.option("--alertmanager", metavar="HOST:PORT", multiple=True, help="Who is told of alerts; may be given again.")
@click.option(
    "--interval",
    metavar="S",
    type=click.IntRange(1, 60),
    default=15,
    show_default=True,
    help="Seconds from one scrape to the next.",
)
@json_option
def prometheus(  # noqa: PLR0913 - an option a parameter is how click has it
    *,
    tf_serving: tuple[str, ...],
    sync: tuple[str, ...],
    gateway: tuple[str, ...],
    envoy: tuple[str, ...],
    folder: str | None,
    namespace: str | None,
    without_gateway: bool,
    rules: tuple[str, ...],
    alertmanager: tuple[str, ...],
    interval: int,
    as_json: bool,
) -> None:
    """Print Prometheus' configuration: where servers, gateways and agents answer.

    A server needs --monitoring_config_file (slipway render monitoring); an agent a --listen, and an Envoy a --metrics
    (slipway render envoy), that Prometheus can reach.
    """
    from model_registry.serving.monitoring.prometheus_config import Scraping, to_text

    named = {"tf-serving": tf_serving, "slipway-sync": sync, "slipway-gateway": gateway, "envoy": envoy}
    with reporting_errors(as_json):
        if without_gateway and (gateway or envoy):
            raise InvalidInputError(
                "--no-gateway, and yet a target of one",
                hint="leave out either; without any target there is no such job",
            )
        scraping = Scraping(
            targets={job: targets for job, targets in named.items() if targets},
            folder=folder or "",
            namespace=namespace or "",
            gateway=not without_gateway,
            rules=rules,
            alertmanagers=alertmanager,
            interval=interval,
        )
        _print("prometheus", to_text(scraping), as_json, jobs=scraping.jobs)


@click.command()
@click.option("--latency", metavar="S", type=float, help="A 99th percentile above this is slow. Default: 0.5.")
@click.option("--error-rate", metavar="SHARE", type=float, help="More errors than this are too many. Default: 0.01.")
@click.option("--requests", metavar="N", type=int, help="In five minutes; fewer are not judged. Default: 100.")
@click.option(
    "--failures", metavar="N", type=int, help="As many in 15 minutes without one answer are too many. Default: 5."
)
@click.option("--lag", metavar="S", type=float, help="What a version may take to be served. Default: 1200.")
@click.option("--gateway-lag", metavar="S", type=float, help="What a weight may take to be in force. Default: 120.")
@click.option(
    "--registry-age", metavar="S", type=float, help="How long the registry may be out of reach. Default: 300."
)
@click.option("--rollout-hours", metavar="H", type=float, help="How long a canary may have requests. Default: 24.")
@_without_gateway
@click.option(
    "--runbooks",
    metavar="URL",
    default="docs/monitoring.md",
    show_default=True,
    help="Where docs/monitoring.md is on your side; alerts link to their heading in it.",
)
@json_option
def alerts(*, without_gateway: bool, runbooks: str, as_json: bool, **limits: float | None) -> None:
    """Print Prometheus' rules: what it computes ahead, and when it calls somebody.

    Each alert says what it means and what to do about it. The dashboard reads what these rules compute.
    """
    from model_registry.serving.monitoring.alert import Thresholds
    from model_registry.serving.monitoring.alerts import alerts as watched
    from model_registry.serving.monitoring.alerts import to_text

    with reporting_errors(as_json):
        given: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
        thresholds = Thresholds(**given)
        content = to_text(thresholds, gateway=not without_gateway, runbooks=runbooks)
        names = [alert.name for alert in watched(thresholds, gateway=not without_gateway)]
        _print("alerts", content, as_json, alerts=names)


@click.command()
@_without_gateway
@json_option
def grafana(without_gateway: bool, as_json: bool) -> None:
    """Print a dashboard for Grafana to import. It needs the rules of `slipway render alerts` in Prometheus."""
    from model_registry.serving.monitoring import dashboard

    _print("grafana", dashboard.to_text(gateway=not without_gateway), as_json, uid=dashboard.UID)


def _print(what: str, content: str, as_json: bool, **more: Any) -> None:
    if as_json:
        print_json({"what": what, "content": content, **more})
    else:
        sys.stdout.write(content)
