"""What an alert is to say of series that somebody made up, for `promtool test rules`.

Series are in promtool's notation: `0+10x40` begins at 0 and grows by 10 forty times, `_x8` is nothing for eight
samples. One sample each fifteen seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model_registry.serving.monitoring.alert import Thresholds

Series = Mapping[str, str]

ROUND = 120  # samples after the first: half an hour
UP = {'up{job="tf-serving", instance="a:8501"}': f"1x{ROUND}"}
ENVOY_UP = {'up{job="envoy", instance="g:9901"}': f"1x{ROUND}"}
DIGITS = {"model": "digits"}
CANARY = {"model": "digits", "label": "canary", "version": "3"}
AT_A = {"job": "slipway-sync", "instance": "a:8502"}
AT_G = {"job": "slipway-gateway", "instance": "g:8503"}
SYNC = 'job="slipway-sync", instance="a:8502"'
GATEWAY = 'job="slipway-gateway", instance="g:8503"'
# A server that loads for nineteen minutes before it opens its port, and its agent.
COLD = {
    f"slipway_sync_server_up{{{SYNC}}}": "0x76 1x400",
    'up{job="tf-serving", instance="a:8501"}': "0x76 1x400",
    f"up{{{SYNC}}}": "1x476",
}
# Two servers of which one is started with the first rollout; nobody listens at its addresses.
NO_CANARY = {
    'up{job="tf-serving", instance="a:8501"}': "1x400",
    f"slipway_sync_server_up{{{SYNC}}}": "1x400",
    'up{job="tf-serving", instance="canary:8501"}': "0x400",
    'up{job="slipway-sync", instance="canary:8502"}': "0x400",
}


def agents(*ups: str, fleet: str = "", ready: str = "1x60", job: str = "slipway-sync") -> dict[str, str]:
    """Agents: whether each can be asked, and whether requests may come.

    Args:
        ups: Of each.
        fleet: Theirs; empty where targets do not tell.
        ready: Of each, as it says; after the first quarter of an hour it says no more.
        job: Whether they are servers' or gateways'.
    """
    of_fleet = f', fleet="{fleet}"' if fleet else ""
    metric = job.replace("-", "_") + "_ready"
    series = {}
    for number, up in enumerate(ups):
        target = f'job="{job}", instance="{fleet or "agent"}-{number}:8502"{of_fleet}'
        series |= {f"up{{{target}}}": up, f"{metric}{{{target}}}": ready}
    return series


def gateways(*ups: str) -> dict[str, str]:
    """The agents of gateways."""
    return agents(*ups, job="slipway-gateway")


# A day of samples takes a minute to go through: a rollout stands long after an hour.
THRESHOLDS = Thresholds(rollout_hours=1)


@dataclass(frozen=True)
class Case:
    """Some series, and what comes of them.

    Attributes:
        alert: Which alert is looked at.
        says: What the case is about.
        series: By their names.
        at: When it is looked at, as Prometheus writes durations.
        firing: The labels of each that fires then, without its name and severity; none where empty.
        blank: Labels that it names and that may be empty.
    """

    alert: str
    says: str
    series: Series
    at: str = "20m"
    firing: tuple[Mapping[str, str], ...] = ()
    blank: frozenset[str] = frozenset()


def requests(status: str, values: str, model: str = "digits") -> Series:
    """TensorFlow Serving's count."""
    job = 'job="tf-serving", instance="a:8501"'
    return {f':tensorflow:serving:request_count{{{job}, model_name="{model}", status="{status}"}}': values}


def latencies(microseconds: int, values: str) -> Series:
    """TensorFlow Serving's buckets of requests that all took just less than so long."""
    series: dict[str, str] = {}
    for bound in (10, 218_795, 393_831, 708_896, 1_276_013):
        bucket = values if bound >= microseconds else f"0x{ROUND}"
        series[_latency(str(bound))] = bucket
    return {**series, _latency("+Inf"): values}


def _latency(bound: str) -> str:
    labels = 'job="tf-serving", instance="a:8501", model_name="digits", API="Predict", entrypoint="GRPC"'
    return f':tensorflow:serving:request_latency_bucket{{{labels}, le="{bound}"}}'


def _envoy(label: str, version: int, api: str) -> str:
    where = 'job="envoy", instance="g:9901", envoy_cluster_name="slipway"'
    return f'{where}, model="digits", label="{label}", version="{version}", api="{api}"'


def rest(label: str, version: int, code: int, values: str, api: str = "rest") -> Series:
    """Envoy's count of answers by the first digit of their code."""
    of = _envoy(label, version, api)
    return {f'envoy_cluster_upstream_rq_xx{{{of}, envoy_response_code_class="{code}"}}': values}


def grpc(label: str, version: int, *, good: str, bad: str) -> Series:
    """Envoy's counts of gRPC: whatever comes of a call, HTTP's code is 200."""
    of = _envoy(label, version, "grpc")
    return {
        **rest(label, version, 2, good, "grpc"),
        f"envoy_cluster_grpc_success{{{of}}}": good,
        f"envoy_cluster_grpc_failure{{{of}}}": bad,
    }


def envoy_latencies(label: str, version: int, milliseconds: int, values: str) -> Series:
    """Envoy's buckets of requests that all took just less than so long."""
    of, series = _envoy(label, version, "rest"), {}
    for bound in (1, 100, 250, 1000):
        values_of = values if bound >= milliseconds else f"0x{ROUND}"
        series[f'envoy_cluster_upstream_rq_time_bucket{{{of}, le="{bound}"}}'] = values_of
    return {**series, f'envoy_cluster_upstream_rq_time_bucket{{{of}, le="+Inf"}}': values}


CASES = (
    # --- latency by model
    Case(
        "SlipwayModelLatencyHigh",
        "most requests take 0.7 s",
        {**UP, **requests("OK", "0+10x120"), **latencies(708_896, "0+10x120")},
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayModelLatencyHigh",
        "they take 0.39 s",
        {**UP, **requests("OK", "0+10x120"), **latencies(393_831, "0+10x120")},
    ),
    Case(
        "SlipwayModelLatencyHigh",
        "a few slow requests are no percentile",
        {**UP, **requests("OK", "0+1x120"), **latencies(708_896, "0+1x120")},
    ),
    Case(
        "SlipwayModelLatencyHigh",
        "nobody asks any more",
        {**UP, **requests("OK", "5000x120"), **latencies(708_896, "5000x120")},
    ),
    Case(
        "SlipwayModelLatencyHigh", "there are only errors, which have none", {**UP, **requests("INTERNAL", "0+10x120")}
    ),
    # --- errors by model
    Case(
        "SlipwayModelErrorsHigh",
        "one in twenty fails",
        {**UP, **requests("OK", "0+19x120"), **requests("INTERNAL", "0+1x120"), **requests("OK", "0+9x120", "faces")},
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayModelErrorsHigh",
        "the statuses add up",
        {
            **UP,
            **requests("OK", "0+1000x120"),
            **requests("INTERNAL", "0+7x120"),
            **requests("UNAVAILABLE", "0+7x120"),
        },
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayModelErrorsHigh",
        "there are only errors",
        {**UP, **requests("INTERNAL", "0+10x120")},
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayModelErrorsHigh",
        "the first errors that there ever were, all at once",
        {**UP, **requests("OK", "0+10x120"), **requests("INTERNAL", "_x60 8x60")},
        at="18m",
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayModelErrorsHigh",
        "one in two hundred fails",
        {**UP, **requests("OK", "0+199x120"), **requests("INTERNAL", "0+1x120")},
    ),
    Case(
        "SlipwayModelErrorsHigh",
        "one of twenty failed",
        {**UP, **requests("OK", "0+1x120"), **requests("INTERNAL", "_x60 1x60")},
        at="18m",
    ),
    Case(
        "SlipwayModelErrorsHigh",
        "nobody asks any more",
        {**UP, **requests("OK", "9x120"), **requests("INTERNAL", "900x120")},
    ),
    Case(
        "SlipwayModelErrorsHigh",
        "Prometheus is new, and finds errors of last week",
        {**UP, **requests("OK", "0+10x120"), **requests("INTERNAL", "5000x120")},
        at="4m",
    ),
    Case(
        "SlipwayModelErrorsHigh",
        "a server is reached again, with errors of last week",
        {
            'up{job="tf-serving", instance="a:8501"}': "0x60 1x60",
            **requests("OK", "_x60 0+10x60"),
            **requests("INTERNAL", "_x60 5000x60"),
        },
        at="18m",
    ),
    # --- nothing but errors
    Case(
        "SlipwayModelOnlyErrors",
        "five requests, the first that there ever were, failed",
        {**UP, **requests("NOT_FOUND", "_x80 5x40")},
        at="23m",
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayModelOnlyErrors",
        "the last that was answered was yesterday's",
        {**UP, **requests("OK", "500x120"), **requests("INTERNAL", "_x80 5x40")},
        at="23m",
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayModelOnlyErrors",
        "others are answered",
        {**UP, **requests("NOT_FOUND", "_x80 5x40"), **requests("OK", "0+1x120")},
        at="23m",
    ),
    Case("SlipwayModelOnlyErrors", "four are too few", {**UP, **requests("NOT_FOUND", "_x80 4x40")}, at="23m"),
    Case("SlipwayModelOnlyErrors", "that was last week", {**UP, **requests("NOT_FOUND", "5000x120")}),
    # --- by version
    Case(
        "SlipwayGatewayOnlyErrors",
        "no server is left: five requests failed",
        {**ENVOY_UP, **rest("stable", 2, 2, "500x120"), **rest("stable", 2, 5, "_x80 5x40")},
        at="23m",
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayGatewayOnlyErrors",
        "five over gRPC, of stable and canary",
        {
            **ENVOY_UP,
            **grpc("stable", 2, good="0x120", bad="_x80 4x40"),
            **grpc("canary", 3, good="0x120", bad="_x80 1x40"),
        },
        at="23m",
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayGatewayOnlyErrors",
        "the canary alone answers",
        {**ENVOY_UP, **rest("stable", 2, 5, "_x80 5x40"), **grpc("canary", 3, good="0+1x120", bad="0x120")},
        at="23m",
    ),
    Case(
        "SlipwayGatewayOnlyErrors",
        "the last was answered ten minutes ago",
        {**ENVOY_UP, **rest("stable", 2, 2, "0+1x76 76x44"), **rest("stable", 2, 5, "_x80 5x40")},
        at="28m",
    ),
    Case("SlipwayGatewayOnlyErrors", "four are too few", {**ENVOY_UP, **rest("stable", 2, 5, "_x80 4x40")}, at="23m"),
    Case(
        "SlipwayGatewayOnlyErrors",
        "those that failed named a version",
        {
            **ENVOY_UP,
            **rest("-stable", 2, 5, "_x80 9x40"),
            **rest("-stable", 0, 5, "_x80 9x40"),
            **grpc("-stable", 2, good="0x120", bad="_x80 9x40"),
        },
        at="23m",
    ),
    Case(
        "SlipwayGatewayOnlyErrors",
        "gRPC that is not shared, since one fleet has both labels",
        {**ENVOY_UP, **grpc("-stable", 0, good="500x120", bad="_x80 5x40")},
        at="23m",
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayGatewayOnlyErrors",
        "such gRPC is answered",
        {**ENVOY_UP, **grpc("-stable", 0, good="0+1x120", bad="0x120"), **rest("stable", 2, 4, "_x80 5x40")},
        at="23m",
    ),
    Case(
        "SlipwayGatewayOnlyErrors",
        "what names a version is answered",
        {**ENVOY_UP, **rest("-stable", 2, 2, "0+1x120"), **rest("stable", 2, 4, "_x80 5x40")},
        at="23m",
    ),
    Case(
        "SlipwayGatewayOnlyErrors",
        "that was half an hour ago",
        {**ENVOY_UP, **rest("stable", 2, 5, "0x4 9x116")},
        at="29m",
    ),
    Case(
        "SlipwayVersionLatencyHigh",
        "the canary takes a second",
        {
            **ENVOY_UP,
            **rest("canary", 3, 2, "0+10x120"),
            **envoy_latencies("canary", 3, 1000, "0+10x120"),
            **rest("stable", 2, 2, "0+90x120"),
            **envoy_latencies("stable", 2, 100, "0+90x120"),
        },
        firing=(CANARY,),
    ),
    Case(
        "SlipwayVersionLatencyHigh",
        "it takes a quarter of one",
        {**ENVOY_UP, **rest("canary", 3, 2, "0+10x120"), **envoy_latencies("canary", 3, 250, "0+10x120")},
    ),
    Case(
        "SlipwayVersionLatencyHigh",
        "the slow ones were asked for by version",
        {**ENVOY_UP, **rest("-canary", 3, 2, "0+10x120"), **envoy_latencies("-canary", 3, 1000, "0+10x120")},
    ),
    Case(
        "SlipwayVersionLatencyHigh",
        "nobody asks it any more",
        {**ENVOY_UP, **rest("canary", 3, 2, "900x120"), **envoy_latencies("canary", 3, 1000, "900x120")},
    ),
    Case(
        "SlipwayVersionErrorsHigh",
        "one in ten of the canary's fails, over REST",
        {
            **ENVOY_UP,
            **rest("canary", 3, 2, "0+9x120"),
            **rest("canary", 3, 5, "0+1x120"),
            **rest("stable", 2, 2, "0+900x120"),
            **rest("stable", 2, 4, "0+1x120"),
        },
        firing=(CANARY,),
    ),
    Case(
        "SlipwayVersionErrorsHigh",
        "one in ten fails over gRPC, where HTTP's code tells nothing",
        {**ENVOY_UP, **grpc("canary", 3, good="0+9x120", bad="0+1x120")},
        firing=(CANARY,),
    ),
    Case(
        "SlipwayVersionErrorsHigh",
        "the first answers of a canary are errors",
        {**ENVOY_UP, **rest("canary", 3, 5, "_x60 120x60")},
        at="18m",
        firing=(CANARY,),
    ),
    Case(
        "SlipwayVersionErrorsHigh",
        "the first errors over gRPC, all at once",
        {**ENVOY_UP, **grpc("canary", 3, good="0+10x120", bad="_x60 8x60")},
        at="18m",
        firing=(CANARY,),
    ),
    Case(
        "SlipwayVersionErrorsHigh",
        "somebody asks for paths that there are not, and for a version that there is not",
        {**ENVOY_UP, **rest("-stable", 0, 4, "0+10x120"), **grpc("-canary", 3, good="0x120", bad="0+10x120")},
    ),
    Case(
        "SlipwayVersionErrorsHigh",
        "one in a thousand fails",
        {**ENVOY_UP, **grpc("canary", 3, good="0+999x120", bad="0+1x120"), **rest("canary", 3, 2, "0+9x120")},
    ),
    Case(
        "SlipwayVersionErrorsHigh",
        "a canary of few requests",
        {**ENVOY_UP, **rest("canary", 3, 2, "0+1x120"), **rest("canary", 3, 5, "_x60 2x60")},
        at="18m",
    ),
    # --- agents
    Case(
        "SlipwaySyncLagging",
        "since twenty-one minutes",
        {
            f'slipway_sync_lag_seconds{{{SYNC}, model="digits"}}': "0+15x120",
            f'slipway_sync_lag_seconds{{{SYNC}, model="faces"}}': "0x120",
        },
        at="22m",
        firing=({**AT_A, **DIGITS},),
    ),
    Case(
        "SlipwaySyncLagging",
        "as long as a load takes",
        {f'slipway_sync_lag_seconds{{{SYNC}, model="digits"}}': "0+15x120"},
        at="17m",
    ),
    Case(
        "SlipwayVersionFailed",
        "one failed",
        {f'slipway_sync_versions{{{SYNC}, model="digits", state="FAILED"}}': "0x20 1x100"},
        firing=({**AT_A, **DIGITS, "state": "FAILED"},),
    ),
    Case(
        "SlipwayVersionFailed",
        "it is being loaded",
        {
            f'slipway_sync_versions{{{SYNC}, model="digits", state="FAILED"}}': "0x120",
            f'slipway_sync_versions{{{SYNC}, model="digits", state="LOADING"}}': "1x120",
        },
    ),
    Case(
        "SlipwaySyncFailing",
        "five downloads",
        {f'slipway_sync_failures_total{{{SYNC}, model="digits", kind="download"}}': "0x20 1x5 2x5 3x5 4x5 5x80"},
        firing=({**AT_A, **DIGITS, "kind": "download"},),
    ),
    Case(
        "SlipwaySyncFailing",
        "the directory as a whole, of no model",
        {f'slipway_sync_failures_total{{{SYNC}, model="", kind="disk"}}': "0x20 1x5 2x5 3x5 4x5 5x80"},
        firing=({**AT_A, "kind": "disk"},),
        blank=frozenset({"model"}),
    ),
    Case(
        "SlipwaySyncFailing",
        "one, and what has its own alert",
        {
            f'slipway_sync_failures_total{{{SYNC}, model="digits", kind="load"}}': "0x20 1x100",
            f'slipway_sync_failures_total{{{SYNC}, model="", kind="registry"}}': "0+1x120",
        },
    ),
    Case(
        "SlipwaySyncRegistryUnreadable",
        "since more than five minutes",
        {f"slipway_sync_registry_age_seconds{{{SYNC}}}": "0+15x120", f"slipway_sync_info{{{SYNC}}}": "1x120"},
        at="8m",
        firing=(AT_A,),
    ),
    Case(
        "SlipwaySyncRegistryUnreadable",
        "never was read",
        {f'slipway_sync_info{{{SYNC}, agent="one", version="0.1.0"}}': "1x120"},
        at="3m",
        firing=({**AT_A, "agent": "one", "version": "0.1.0"},),
    ),
    Case(
        "SlipwaySyncRegistryUnreadable",
        "it is read",
        {f"slipway_sync_registry_age_seconds{{{SYNC}}}": "5x120", f"slipway_sync_info{{{SYNC}}}": "1x120"},
    ),
    Case(
        "SlipwayAgentRestarting",
        "three times",
        {f"process_start_time_seconds{{{SYNC}}}": "100x20 200x20 300x20 400x60"},
        firing=(AT_A,),
    ),
    Case("SlipwayAgentRestarting", "once", {f"process_start_time_seconds{{{SYNC}}}": "100x20 200x100"}),
    # --- gateways
    Case(
        "SlipwayGatewayLagging",
        "since minutes",
        {f'slipway_gateway_lag_seconds{{{GATEWAY}, model="digits"}}': "0+15x120"},
        at="5m",
        firing=({**AT_G, **DIGITS},),
    ),
    Case(
        "SlipwayGatewayLagging",
        "since a moment",
        {f'slipway_gateway_lag_seconds{{{GATEWAY}, model="digits"}}': "0 15 30 0x90"},
    ),
    Case("SlipwayGatewayEnvoyDown", "it is", {f"slipway_gateway_envoy_up{{{GATEWAY}}}": "1x20 0x100"}, firing=(AT_G,)),
    Case("SlipwayGatewayEnvoyDown", "it was", {f"slipway_gateway_envoy_up{{{GATEWAY}}}": "1x20 0x2 1x90"}, at="5m30s"),
    Case(
        "SlipwayGatewayRegistryUnreadable",
        "since more than five minutes",
        {
            f"slipway_gateway_registry_age_seconds{{{GATEWAY}}}": "0+15x120",
            f"slipway_gateway_info{{{GATEWAY}}}": "1x120",
        },
        at="8m",
        firing=(AT_G,),
    ),
    Case(
        "SlipwayGatewayRegistryUnreadable",
        "it is read",
        {f"slipway_gateway_registry_age_seconds{{{GATEWAY}}}": "5x120", f"slipway_gateway_info{{{GATEWAY}}}": "1x120"},
    ),
    Case(
        "SlipwayCanaryStandsLong",
        "for an hour, at more and more, and by gateways that come and go",
        {
            f'slipway_gateway_weight{{{GATEWAY}, model="digits"}}': "0x10 5x150",
            'slipway_gateway_weight{job="slipway-gateway", instance="h:8503", model="digits"}': "_x150 25x150",
            f'slipway_gateway_weight{{{GATEWAY}, model="faces"}}': "0x300",
        },
        at="65m",
        firing=(DIGITS,),
    ),
    Case(
        "SlipwayCanaryStandsLong",
        "one rollout, and another",
        {f'slipway_gateway_weight{{{GATEWAY}, model="digits"}}': "5x150 0x60 5x240"},
        at="85m",
    ),
    Case(
        "SlipwayCanaryStandsLong",
        "for an hour, in which the gateway could not be asked for some minutes",
        {f'slipway_gateway_weight{{{GATEWAY}, model="digits"}}': "5x150 _x30 5x120"},
        at="65m",
        firing=(DIGITS,),
    ),
    # --- targets
    Case(
        "SlipwayServerDown",
        "its agent gets no answer",
        {f"slipway_sync_server_up{{{SYNC}}}": "1x20 0x100", **UP},
        firing=(AT_A,),
    ),
    Case(
        "SlipwayServerDown",
        "it cannot be scraped",
        {f"slipway_sync_server_up{{{SYNC}}}": "1x120", 'up{job="tf-serving", instance="a:8501"}': "1x20 0x100"},
        firing=({"job": "tf-serving", "instance": "a:8501"},),
    ),
    Case(
        "SlipwayServerDown",
        "it is started again",
        {f"slipway_sync_server_up{{{SYNC}}}": "1x20 0x5 1x90", **UP},
        at="6m",
    ),
    Case(
        "SlipwayServerDown",
        "it never came back",
        {f"slipway_sync_server_up{{{SYNC}}}": "1x20 0x400", 'up{job="tf-serving", instance="a:8501"}': "1x20 0x400"},
        at="90m",
        firing=(AT_A, {"job": "tf-serving", "instance": "a:8501"}),
    ),
    Case("SlipwayServerDown", "a cold start: it loads its first models", COLD, at="18m"),
    Case("SlipwayServerDown", "the canary is not there yet", NO_CANARY, at="90m"),
    Case(
        "SlipwayServerNotStarted",
        "a new server does not come up",
        {f"slipway_sync_server_up{{{SYNC}}}": "0x120", 'up{job="tf-serving", instance="a:8501"}': "0x120"},
        at="21m",
        firing=(AT_A, {"job": "tf-serving", "instance": "a:8501"}),
    ),
    Case("SlipwayServerNotStarted", "a cold start: it loads its first models", COLD, at="25m"),
    Case(
        "SlipwayServerNotStarted",
        "the canary's server is there, with nothing in it",
        {f"slipway_sync_server_up{{{SYNC}}}": "0 1x120", 'up{job="tf-serving", instance="a:8501"}': "0 1x120"},
    ),
    Case(
        "SlipwayServerNotStarted",
        "one that did answer is told of otherwise",
        {f"slipway_sync_server_up{{{SYNC}}}": "1x20 0x400", **UP},
        at="90m",
    ),
    Case(
        "SlipwayAgentDown", "an agent is", {f"up{{{SYNC}}}": "1x20 0x100", f"up{{{GATEWAY}}}": "1x120"}, firing=(AT_A,)
    ),
    Case("SlipwayAgentDown", "a gateway's agent is", {f"up{{{GATEWAY}}}": "0x120"}, firing=(AT_G,)),
    Case("SlipwayAgentDown", "another job is", {f"up{{{SYNC}}}": "1x120", 'up{job="node", instance="a"}': "0x120"}),
    Case(
        "SlipwayMostAgentsDown",
        "two of three, and no gateway's",
        agents("1x120", "1x60 0x60", "1x60 0x60") | gateways("1x120"),
        at="18m30s",
        firing=({"job": "slipway-sync"},),
        blank=frozenset({"fleet"}),
    ),
    Case(
        "SlipwayMostAgentsDown",
        "all gateways'",
        agents("1x120", "1x120") | gateways("1x60 0x60", "1x60 0x60"),
        at="18m30s",
        firing=({"job": "slipway-gateway"},),
        blank=frozenset({"fleet"}),
    ),
    Case(
        "SlipwayMostAgentsDown",
        "both crash again and again, and are there for a moment each in turn",
        agents("1x40" + " 0x8 1" * 8, "1x40 0x3" + " 1 0x8" * 8),
        firing=({"job": "slipway-sync"},),
        blank=frozenset({"fleet"}),
    ),
    Case(
        "SlipwayMostAgentsDown",
        "all of stable, and the canary's are there",
        agents("1x60 0x60", "1x60 0x60", fleet="stable") | agents("1x120", "1x120", "1x120", fleet="canary"),
        at="18m30s",
        firing=({"job": "slipway-sync", "fleet": "stable"},),
    ),
    Case(
        "SlipwayMostAgentsDown",
        "all of a canary that has requests",
        agents("1x120", "1x120", "1x120", fleet="stable") | agents("1x60 0x60", "1x60 0x60", fleet="canary"),
        at="18m30s",
        firing=({"job": "slipway-sync", "fleet": "canary"},),
    ),
    Case(
        "SlipwayMostAgentsDown",
        "all of a canary that has no requests any more",
        agents("1x120", "1x120", fleet="stable") | agents("1x60 0x60", "1x60 0x60", fleet="canary", ready="1x30 0x30"),
    ),
    Case(
        "SlipwayMostAgentsDown",
        "all, since long",
        agents("1x20 0x100", "1x20 0x100", fleet="stable", ready="1x20"),
        at="29m",
        firing=({"job": "slipway-sync", "fleet": "stable"},),
    ),
    Case(
        "SlipwayMostAgentsDown",
        "the addresses of stable's pods are now those of a canary's that was never ready",
        agents("1x60 stale", "1x60 stale")
        | {
            f'up{{job="slipway-sync", instance="agent-{number}:8502", fleet="canary"}}': "_x61 0x60"
            for number in (0, 1)
        },
    ),
    Case(
        "SlipwayMostAgentsDown",
        "three that were added are not there yet",
        agents("1x120", "1x120")
        | {f'up{{job="slipway-sync", instance="new-{number}:8502"}}': "_x60 0x60" for number in range(3)},
    ),
    Case("SlipwayMostAgentsDown", "one of two", agents("1x120", "1x60 0x60")),
    Case("SlipwayMostAgentsDown", "one of each two", agents("1x60 0x60", "1x120", fleet="stable") | gateways("0x120")),
    Case("SlipwayMostAgentsDown", "one of one", agents("1x60 0x60") | gateways("1x60 0x60")),
    Case(
        "SlipwayMostAgentsDown",
        "one of one, and one was never ready",
        agents("1x60 0x60") | {'up{job="slipway-sync", instance="new:8502"}': "1x120"},
    ),
    Case(
        "SlipwayMostAgentsDown",
        "one of two, and the other did not answer once",
        agents("1x60 0 1x60", "1x20 0x100"),
        at="17m15s",
    ),
    Case("SlipwayMostAgentsDown", "all are started again at once", agents(*["1x60 0x3 1x60"] * 5), at="16m15s"),
    Case(
        "SlipwayMostAgentsDown",
        "the canary's three are not there yet",
        agents("1x120", "1x120", fleet="stable") | agents("0x120", "0x120", "0x120", fleet="canary", ready="_x60"),
    ),
    Case(
        "SlipwayMostAgentsDown",
        "another job is",
        dict.fromkeys(('up{job="node", instance="a"}', 'up{job="node", instance="b"}'), "1x60 0x60"),
    ),
    Case(
        "SlipwayEnvoyDown",
        "it is",
        {'up{job="envoy", instance="g:9901"}': "0x120"},
        firing=({"job": "envoy", "instance": "g:9901"},),
    ),
    Case("SlipwayEnvoyDown", "it is not", ENVOY_UP),
    Case(
        "SlipwayTargetsMissing",
        "two jobs have none",
        {**UP, f"up{{{SYNC}}}": "1x120"},
        firing=({"job": "envoy"}, {"job": "slipway-gateway"}),
    ),
    Case(
        "SlipwayTargetsMissing",
        "all have some, though one is down",
        {**UP, **ENVOY_UP, f"up{{{SYNC}}}": "0x120", f"up{{{GATEWAY}}}": "1x120"},
    ),
)
