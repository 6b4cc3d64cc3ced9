"""What Prometheus computes ahead, so that alerts and dashboards read the same numbers. Pure.

TensorFlow Serving and Envoy have units and habits of their own, which are dealt with here and nowhere else:

- TensorFlow Serving's names begin with a colon, `:tensorflow:serving:request_count`; to PromQL they are names like any
  other. Its model is `model_name` and becomes `model`; its latencies are microseconds, Envoy's
  milliseconds, and both become seconds.
- Only an answer that is `OK` has a latency: a model with nothing but errors has no series of it.
- A counter is there once something was counted. `increase` takes a series for what happened between two of its samples,
  and so never sees the first error, nor, where it is the only one, any. `_increase` counts it.
- A model that nobody asks gives 0 / 0. NaN is in no comparison true, yet shows in graphs; it is left out.
- Which of Envoy's counters are a request and which an error is told in gateway/envoy_metrics.py.

A recorded name says by what (`model:`, `version:`), of what, and how: https://prometheus.io/docs/practices/rules/.
`version:` stands for model, label and version together.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import indent

from model_registry.serving.gateway import envoy_metrics as envoy

TF_REQUESTS = ":tensorflow:serving:request_count"
TF_LATENCY = ":tensorflow:serving:request_latency_bucket"

# Four scrapes and more, at the longest interval that the scrape configuration is written for.
WINDOW = "5m"
SECONDS = 300  # of that window
LONG_WINDOW = "15m"

REQUESTS_BY_STATUS = "model_status:slipway_requests:increase5m"
REQUESTS = "model:slipway_requests:increase5m"
ANSWERS_LONG = "model:slipway_answers:increase15m"
FAILURES_LONG = "model:slipway_failures:increase15m"
ERRORS = "model:slipway_errors:ratio5m"
P50 = "model:slipway_latency_seconds:p50_5m"
P99 = "model:slipway_latency_seconds:p99_5m"

VERSION_ANSWERS = "version:slipway_answers:increase5m"
VERSION_FAILURES = "version:slipway_failures:increase5m"
VERSION_REQUESTS = "version:slipway_requests:increase5m"
VERSION_ERRORS = "version:slipway_errors:ratio5m"
VERSION_P50 = "version:slipway_latency_seconds:p50_5m"
VERSION_P99 = "version:slipway_latency_seconds:p99_5m"

GATEWAY_ANSWERS_LONG = "model:slipway_gateway_answers:increase15m"
GATEWAY_FAILURES_LONG = "model:slipway_gateway_failures:increase15m"

BY_VERSION = "model, label, version"

# Of what names a version or label, and of paths that name nothing at all, whoever asks decides which series it is in.
SHARED = 'label!~"-.*"'  # see gateway/envoy_metrics.py
# But for gRPC where servers follow several labels: all of it goes to stable's, and none says which version answers.
UNSHARED_GRPC = 'label=~"-.*", version="0", api="grpc"'


@dataclass(frozen=True)
class Recording:
    """An expression that Prometheus keeps the value of.

    Attributes:
        name: The series that it is kept as.
        expression: PromQL.
        says: What it is, for a person.
    """

    name: str
    expression: str
    says: str


def recordings(*, gateway: bool = True) -> tuple[Recording, ...]:
    """All of them, each after those that it reads: a group is evaluated in its order.

    Args:
        gateway: Whether there are gateways, which alone tell versions apart.
    """
    return (*_of_models(), *(_of_versions() if gateway else ()))


def _of_models() -> tuple[Recording, ...]:
    failed, answered = 'status!="OK"', 'status="OK"'
    return (
        Recording(REQUESTS_BY_STATUS, _by_model(_increase(TF_REQUESTS), "status"), "requests in five minutes"),
        Recording(REQUESTS, f"sum by (model) ({REQUESTS_BY_STATUS})", "all of them"),
        Recording(
            ANSWERS_LONG,
            _by_model(_increase(TF_REQUESTS, answered, LONG_WINDOW)),
            "requests that were answered, in a quarter of an hour; no series before the first",
        ),
        Recording(
            FAILURES_LONG,
            _by_model(_increase(TF_REQUESTS, failed, LONG_WINDOW)),
            "requests that failed, in a quarter of an hour; no series before the first",
        ),
        Recording(
            ERRORS,
            _share(f"sum by (model) ({REQUESTS_BY_STATUS}{{{failed}}})", REQUESTS),
            "which share of the requests failed; nothing for a model without any",
        ),
        *(
            Recording(name, _quantile(of, _by_model(f"rate({TF_LATENCY}[{WINDOW}])", "le"), "1e6"), says)
            for name, of, says in (
                (P50, "0.5", "the median latency in seconds; nothing where no request was answered"),
                (P99, "0.99", "the 99th percentile, likewise"),
            )
        ),
    )


def _of_versions() -> tuple[Recording, ...]:
    latency = f'rate({envoy.LATENCY}{{model!=""}}[{WINDOW}])'
    return (
        Recording(
            VERSION_ANSWERS,
            _sum(BY_VERSION, _gateway_answers('model!=""')),
            "requests that a version answered through the gateways in five minutes, over REST and gRPC",
        ),
        Recording(
            VERSION_FAILURES,
            _sum(BY_VERSION, _gateway_failures('model!=""')),
            "requests to it that failed, or that it was out of reach for",
        ),
        Recording(
            VERSION_REQUESTS,
            _any(f"{VERSION_ANSWERS} + {VERSION_FAILURES}", VERSION_ANSWERS, VERSION_FAILURES),
            "both; there may be either alone",
        ),
        Recording(VERSION_ERRORS, _share(VERSION_FAILURES, VERSION_REQUESTS), "which share of the requests failed"),
        Recording(
            GATEWAY_ANSWERS_LONG,
            _sum("model", _gateway_answers('model!=""', LONG_WINDOW)),
            "requests to a model that were answered through the gateways, in a quarter of an hour",
        ),
        Recording(
            GATEWAY_FAILURES_LONG,
            _sum(
                "model",
                _any(
                    _gateway_failures(f'model!="", {SHARED}', LONG_WINDOW),
                    _increase(envoy.GRPC_FAILURES, f'model!="", {UNSHARED_GRPC}', LONG_WINDOW),
                ),
            ),
            "those that failed and were for whichever version the gateways chose",
        ),
        *(
            Recording(name, _quantile(of, _sum(f"{BY_VERSION}, le", latency), "1e3"), says)
            for name, of, says in (
                (VERSION_P50, "0.5", "a version's median latency in seconds, as its gateways see it, errors included"),
                (VERSION_P99, "0.99", "the 99th percentile, likewise"),
            )
        ),
    )


def _gateway_answers(of: str, window: str = WINDOW) -> str:
    return _any(
        _increase(envoy.REQUESTS, f'{of}, api="rest", {envoy.CLASS}="2"', window),
        _increase(envoy.GRPC_SUCCESSES, f'{of}, api="grpc"', window),
    )


def _gateway_failures(of: str, window: str = WINDOW) -> str:
    return _any(
        _increase(envoy.REQUESTS, f'{of}, api="rest", {envoy.CLASS}!="2"', window),
        _increase(envoy.GRPC_FAILURES, f'{of}, api="grpc"', window),
    )


def _any(*expressions: str) -> str:
    return "\n  or\n".join(expressions)


def _increase(metric: str, matchers: str = "", window: str = WINDOW) -> str:
    """How much counters grew, with what they began with, if they began since.

    The latter holds where Prometheus asked the same target a window ago and got an answer without the series: what it
    finds when it is new itself, or the target is back, happened no one knows when. Such a part is labelled, or `or`
    would take it for the same series and drop it.
    """
    series = f"{metric}{{{matchers}}}" if matchers else metric
    return f"""\
increase({series}[{window}])
  or
label_replace(
  min_over_time({series}[{window}])
    unless
  {series} offset {window}
    and on (job, instance)
  up offset {window} == 1,
  "part", "first", "job", ".*"
)"""


def _by_model(expression: str, *more: str) -> str:
    """The sum by model, and by more labels, under the label that everything else calls a model by.

    It is summed by the old name first: `or` between series that have lost their own labels would drop some.
    """
    summed = _sum(", ".join(["model_name", *more]), expression)
    renamed = f'label_replace(\n{indent(summed, "  ")},\n  "model", "$1", "model_name", "(.*)"\n)'
    return _sum(", ".join(["model", *more]), renamed)


def _sum(by: str, expression: str) -> str:
    return f"sum by ({by}) (\n{indent(expression, '  ')}\n)"


def _share(part: str, whole: str) -> str:
    """Zero where there is no part of the whole, and nothing where there is no whole."""
    return f"({part} or 0 * {whole})\n  / ({whole} > 0)"


def _quantile(of: str, buckets: str, units: str) -> str:
    return f"histogram_quantile(\n  {of},\n{indent(buckets, '  ')}\n) / {units} >= 0"
