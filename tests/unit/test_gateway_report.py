"""What a gateway's agent tells of itself, as JSON, as obstacles, as events and as metrics."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_registry.errors import FormatError
from model_registry.serving.gateway.gateway_events import events
from model_registry.serving.gateway.gateway_metrics import GatewayMetrics
from model_registry.serving.gateway.gateway_report import GatewayReport, RoutedReport

SHARED = RoutedReport(wanted_revision=7, revision=7, stable=3, canary=4, wanted_weight=25, weight=25)
BEHIND = replace(SHARED, revision=6, weight=5)
REPORT = GatewayReport(
    agent="gateway-1",
    registry="s3://models/registry",
    directory="/srv/gateway",
    envoy="http://127.0.0.1:9901",
    envoy_reachable=True,
    registry_age=2.5,
    models={"digits": SHARED, "faces": RoutedReport(wanted_revision=2, revision=2, stable=1, weight=0)},
)
SILENT = replace(
    REPORT,
    envoy_reachable=False,
    envoy_problem="it does not answer: Connection refused",
    models={"digits": replace(SHARED, revision=None, weight=None)},
)


def with_digits(model: RoutedReport) -> GatewayReport:
    return replace(REPORT, models={"digits": model})


def samples(report: GatewayReport, metrics: GatewayMetrics | None = None) -> dict[tuple[str, ...], float]:
    """Every sample of the agent's own, by its name and the values of its labels, sorted by their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families((metrics or GatewayMetrics()).render(report).decode())
        for sample in family.samples
        if sample.name.startswith("slipway_")
    }


def test_a_report_is_read_as_it_was_written() -> None:
    for report in (REPORT, SILENT, with_digits(BEHIND)):
        assert GatewayReport.from_json(report.to_json(), url="u") == report


def test_a_notice_is_told_and_holds_nothing_up() -> None:
    noticed = with_digits(replace(SHARED, notice="gRPC is not shared"))

    assert GatewayReport.from_json(noticed.to_json(), url="u").models["digits"].notice == "gRPC is not shared"
    assert noticed.well and not noticed.obstacles()
    assert [*events(with_digits(SHARED), noticed)] == [(logging.WARNING, "digits: gRPC is not shared")]
    assert [*events(noticed, noticed)] == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"schema_version": 2}',
        REPORT.to_json().replace(b'"weight": 25', b'"weight": 101'),
        REPORT.to_json().replace(b'"revision": 7', b'"revision": -1'),
        REPORT.to_json().replace(b'"stable": 3', b'"stable": 0'),
    ],
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        GatewayReport.from_json(data, url="http://gateway/status")


@pytest.mark.parametrize(
    ("model", "settled"),
    [
        (SHARED, True),
        (BEHIND, False),
        (replace(SHARED, weight=5), False),
        (replace(SHARED, revision=6), False),
        (replace(SHARED, problem="no fleet serves its label"), False),
        (replace(SHARED, revision=None, weight=None), False),
        (RoutedReport(wanted_revision=8), True),
        (RoutedReport(wanted_revision=8, revision=7, weight=0), False),
    ],
)
def test_a_model_is_settled_where_its_very_revision_and_weight_are_in_force(model: RoutedReport, settled: bool) -> None:
    assert model.settled is settled
    assert with_digits(model).settled is settled


def test_a_gateway_is_well_only_where_everybody_could_be_asked() -> None:
    assert REPORT.well
    for lacking in (
        {"registry_age": None},
        {"registry_problem": "away"},
        {"disk_problem": "full"},
        {"envoy_reachable": False},
    ):
        assert not replace(REPORT, **lacking).well  # type: ignore[arg-type]
    assert replace(REPORT, registry_problem="away").settled
    assert not replace(REPORT, envoy_reachable=False).settled


def test_obstacles_are_told_in_words() -> None:
    assert REPORT.obstacles() == ()
    assert with_digits(BEHIND).obstacles() == (
        "digits: in force is 5 % by revision 6, wanted is 25 % to canary by revision 7",
    )
    assert with_digits(RoutedReport(wanted_revision=8, revision=7, weight=0)).obstacles() == (
        "digits: in force is 0 % by revision 7, wanted is no route",
    )
    assert with_digits(replace(BEHIND, problem="it is broken")).obstacles() == ("digits: it is broken",)
    assert SILENT.obstacles() == ("Envoy at http://127.0.0.1:9901: it does not answer: Connection refused",)
    assert replace(REPORT, registry_age=None, disk_problem="it is full").obstacles() == (
        "the registry has not been read yet",
        "the directory cannot be kept up: it is full",
    )


def test_what_is_in_force_is_measured() -> None:
    found = samples(with_digits(BEHIND))

    assert found["slipway_gateway_weight", "digits"] == 5
    assert found["slipway_gateway_wanted_weight", "digits"] == 25
    assert found["slipway_gateway_revision", "digits"] == 6
    assert found["slipway_gateway_envoy_up",] == 1
    assert found["slipway_gateway_registry_age_seconds",] == 2.5


def test_what_an_envoy_that_is_silent_has_in_force_is_not_guessed() -> None:
    found = samples(replace(SILENT, registry_age=None))

    assert found["slipway_gateway_envoy_up",] == 0
    assert found["slipway_gateway_wanted_weight", "digits"] == 25
    assert not found.keys() & {("slipway_gateway_weight", "digits"), ("slipway_gateway_revision", "digits")}
    assert ("slipway_gateway_registry_age_seconds",) not in found


def test_the_lag_begins_at_the_look_that_found_it_and_not_when_somebody_asks() -> None:
    now = [100.0]
    metrics = GatewayMetrics(clock=lambda: now[0])
    metrics.observe(REPORT)
    metrics.observe(with_digits(BEHIND))
    now[0] += 30
    behind = samples(with_digits(BEHIND), metrics)
    silent = samples(SILENT, metrics)
    now[0] += 30
    settled = samples(REPORT, metrics)

    assert behind["slipway_gateway_lag_seconds", "digits"] == 30
    assert silent["slipway_gateway_lag_seconds", "digits"] == 30
    assert settled["slipway_gateway_lag_seconds", "digits"] == 0


LAG = ("slipway_gateway_lag_seconds", "digits")
WITHOUT_STABLE = RoutedReport(
    wanted_revision=8, unrouted=True, problem="it has no route: it has no label 'stable', but shadow"
)


def test_a_model_that_is_to_have_no_route_and_has_none_does_not_lag() -> None:
    now = [100.0]
    metrics = GatewayMetrics(clock=lambda: now[0])
    report = with_digits(WITHOUT_STABLE)
    metrics.observe(report)
    now[0] += 3600

    assert samples(report, metrics)[LAG] == 0
    assert report.obstacles() == (f"digits: {WITHOUT_STABLE.problem}",) and not report.well


@pytest.mark.parametrize(
    "report",
    [
        with_digits(replace(WITHOUT_STABLE, revision=7, weight=0)),
        with_digits(replace(SHARED, revision=None, weight=None)),
        with_digits(replace(WITHOUT_STABLE, unrouted=False)),
        replace(with_digits(WITHOUT_STABLE), envoy_reachable=False),
    ],
    ids=["the old route is in force", "none is in force yet", "its state is not known", "Envoy is silent"],
)
def test_a_model_lags_while_a_route_is_wanted_or_in_force_or_nobody_knows(report: GatewayReport) -> None:
    now = [100.0]
    metrics = GatewayMetrics(clock=lambda: now[0])
    metrics.observe(report)
    now[0] += 30

    assert samples(report, metrics)[LAG] == 30
    assert samples(with_digits(WITHOUT_STABLE), metrics)[LAG] == 0


@pytest.mark.parametrize(("ready", "told"), [(None, None), (False, 0), (True, 1)])
def test_whether_envoy_is_ready_is_told_once_it_was_looked_at(ready: bool | None, told: float | None) -> None:
    assert samples(replace(REPORT, ready=ready)).get(("slipway_gateway_ready",)) == told


def test_failures_are_counted_from_zero_on() -> None:
    metrics = GatewayMetrics()
    metrics.failed("", "envoy")
    found = samples(REPORT, metrics)

    assert {kind: found["slipway_gateway_failures_total", kind] for kind in ("disk", "envoy", "registry")} == {
        "disk": 0,
        "envoy": 1,
        "registry": 0,
    }


def test_the_log_tells_what_changed_and_nothing_else() -> None:
    told = [line for _, line in events(replace(REPORT, models={}, envoy_reachable=False), with_digits(BEHIND))]
    assert told == [
        "Envoy answers at http://127.0.0.1:9901",
        "digits: 25 % to digits:4, the rest to digits:3, is wanted, since revision 7",
        "digits: 5 % to canary in force, by revision 6",
    ]
    assert [line for _, line in events(with_digits(BEHIND), with_digits(SHARED))] == [
        "digits: 25 % to canary in force, by revision 7"
    ]
    assert [*events(REPORT, REPORT)] == []
    assert [*events(with_digits(SHARED), replace(REPORT, models={}))] == [
        (logging.INFO, "digits is not routed any more"),
    ]
    assert next(events(REPORT, SILENT)) == (
        logging.WARNING,
        "Envoy at http://127.0.0.1:9901: it does not answer: Connection refused",
    )
