"""Alerts about requests: that they fail or take long, by model as its servers tell, by version as gateways do. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from model_registry.serving.monitoring import recording_rules as recorded
from model_registry.serving.monitoring.alert import Alert, Thresholds, promql_number


def of_models(limits: Thresholds) -> Iterator[Alert]:
    """Over a whole fleet, whichever version answers."""
    enough = f'sum by (model) ({recorded.REQUESTS_BY_STATUS}{{status="OK"}}) >= {limits.requests}'
    yield Alert(
        "SlipwayModelLatencyHigh",
        expression=f"{recorded.P99} > {promql_number(limits.latency)}\n  and on (model)\n{enough}",
        lasting="5m",
        severity="warning",
        summary="{{ $labels.model }} is slow: its 99th percentile is {{ $value | humanizeDuration }}",
        means=f"One request in a hundred takes longer than {promql_number(limits.latency)} s inside TensorFlow "
        "Serving, over the whole fleet, and has for ten minutes. Requests that fail have no latency and are "
        "not in it.",
        do="See whether it began with a promotion: slipway history {{ $labels.model }}. If so: slipway rollback "
        "{{ $labels.model }} stable. If not, look for load (requests in the dashboard) and for busy "
        "neighbours.",
    )
    yield Alert(
        "SlipwayModelErrorsHigh",
        expression=f"{recorded.ERRORS} > {promql_number(limits.error_rate)}\n  and on (model)\n"
        f"{recorded.REQUESTS} >= {limits.requests}",
        lasting="2m",
        severity="critical",
        summary="{{ $value | humanizePercentage }} of the requests to {{ $labels.model }} fail",
        means=f"More than {100 * limits.error_rate:.4g} % of the requests end otherwise than OK, over the whole "
        "fleet. INVALID_ARGUMENT counts: a new version that takes other inputs than its clients send looks "
        "like that.",
        do="See which status it is (dashboard, Errors by status), and whether it began with a promotion: "
        "slipway history {{ $labels.model }}. If so: slipway rollback {{ $labels.model }} stable, or during "
        "a rollout slipway rollout {{ $labels.model }} --abort. UNAVAILABLE is a full queue: more servers, "
        "or fewer clients.",
    )
    yield Alert(
        "SlipwayModelOnlyErrors",
        expression=f"{recorded.FAILURES_LONG} >= {limits.failures}\n  unless on (model)\n{recorded.ANSWERS_LONG} > 0",
        lasting="1m",
        severity="critical",
        summary="{{ $labels.model }} answers nobody: {{ $value | humanize }} requests in a quarter of an hour, and "
        "all failed",
        means="However few they are, every request fails. Nothing is known of its latency meanwhile: there is none "
        "without an answer.",
        do="Does the registry have it: slipway list {{ $labels.model }}? If not, a client asks for a wrong "
        "name. If so: slipway history {{ $labels.model }}, and slipway rollback {{ $labels.model }} stable "
        "where a promotion did it. Ask by hand: slipway predict {{ $labels.model }}@stable --server HOST:8500.",
    )


def of_versions(limits: Thresholds) -> Iterator[Alert]:
    """By version, over all gateways: TensorFlow Serving has no label for it.

    Of requests that were shared by chance: how often what names a version or label fails is up to whoever asks, and
    nobody is to be woken by that. Its errors are in SlipwayModelErrorsHigh.
    """
    shared = f"{{{recorded.SHARED}}}"
    enough = f"  and on ({recorded.BY_VERSION})\n{recorded.VERSION_REQUESTS} >= {limits.requests}"
    who = "{{ $labels.model }}:{{ $labels.version }} as {{ $labels.label }}"
    end = (
        "The label tells which: for the canary slipway rollout {{ $labels.model }} --abort, for stable "
        "slipway rollback {{ $labels.model }} stable. slipway rollout {{ $labels.model }} --status tells how "
        "far a rollout is."
    )
    yield Alert(
        "SlipwayVersionLatencyHigh",
        expression=f"{recorded.VERSION_P99}{shared} > {promql_number(limits.latency)}\n{enough}",
        lasting="5m",
        severity="warning",
        summary=f"{who} is slow: its 99th percentile is {{{{ $value | humanizeDuration }}}}",
        means=f"One request in a hundred takes this version longer than {promql_number(limits.latency)} s, as the "
        "gateways see it: network and queue included. Requests that name a version or label are not in it.",
        do=f"Hold it against the other version in the dashboard. {end}",
    )
    yield Alert(
        "SlipwayVersionErrorsHigh",
        expression=f"{recorded.VERSION_ERRORS}{shared} > {promql_number(limits.error_rate)}\n{enough}",
        lasting="2m",
        severity="critical",
        summary=f"{{{{ $value | humanizePercentage }}}} of the requests to {who} fail",
        means=f"More than {100 * limits.error_rate:.4g} % of the requests that gateways send to this version fail, "
        "over REST or gRPC, or find no server. Of all requests to the model it may be too few for "
        "SlipwayModelErrorsHigh. Requests that name a version or label are not in it.",
        do=f"If both versions fail alike, it is not the version: look at the servers. {end}",
    )
    yield Alert(
        "SlipwayGatewayOnlyErrors",
        expression=f"{recorded.GATEWAY_FAILURES_LONG} >= {limits.failures}\n  unless on (model)\n"
        f"{recorded.GATEWAY_ANSWERS_LONG} > 0",
        lasting="1m",
        severity="critical",
        summary="Through the gateways {{ $labels.model }} answers nobody: {{ $value | humanize }} requests in a "
        "quarter of an hour, and all failed",
        means="However few they are, every request fails, and not one that names a version was answered either. Where "
        "its servers are gone altogether, they tell nothing: "
        "SlipwayModelOnlyErrors is silent, and so is SlipwayServerDown once Prometheus does not find them any more.",
        do="Are there servers: in Kubernetes kubectl get pods (Pending: no node has room for them), and Prometheus' "
        "Targets page? If so, ask one by hand: slipway predict {{ $labels.model }}@stable --server HOST:8500, and see "
        "slipway history {{ $labels.model }}: where a promotion did it, slipway rollback {{ $labels.model }} stable.",
    )
