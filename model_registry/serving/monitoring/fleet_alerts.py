"""Alerts about servers, agents and gateways: that one is gone, behind, or tries in vain. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from model_registry.serving.monitoring.alert import Alert, Thresholds, promql_duration, promql_number
from model_registry.serving.monitoring.prometheus_config import GATEWAY_JOBS, JOBS

# A bare gauge has no sample after a few scrapes that were missed, and `for` begins anew.
_WEIGHT = "max by (model) (max_over_time(slipway_gateway_weight[10m]))"

# What is 1 while a server answers: its agent's word, and Prometheus' own.
_ANSWERS = ("slipway_sync_server_up", 'up{job="tf-serving"}')
_REMEMBERED = "1d"

# In Kubernetes a pod takes requests only while its agent works. Updates and evictions take one away at a time, which is
# no more than half of two; where fewer than half are left, each has more than twice its usual requests.
_MOST = 0.5


def of_agents(limits: Thresholds) -> Iterator[Alert]:
    """What sync agents tell of their servers, the registry and themselves."""
    yield Alert(
        "SlipwaySyncLagging",
        expression=f"slipway_sync_lag_seconds > {promql_number(limits.lag)}",
        lasting="1m",
        severity="warning",
        summary="{{ $labels.instance }} has not served what the registry wants of {{ $labels.model }} for "
        "{{ $value | humanizeDuration }}",
        means="A load takes no such time. The server goes on with what it had: requests are answered, by an older "
        "version.",
        do="Ask the agent: curl http://{{ $labels.instance }}/status tells what it waits for. After mending the "
        "cause: slipway promote {{ $labels.model }}:VERSION LABEL --wait --agent "
        "http://{{ $labels.instance }} --retry.",
    )
    yield Alert(
        "SlipwayVersionFailed",
        expression='slipway_sync_versions{state="FAILED"} > 0',
        lasting="1m",
        severity="warning",
        summary="A version of {{ $labels.model }} could not be brought to {{ $labels.instance }}, or loaded there",
        means="The label stays at the version before, which goes on answering.",
        do="curl http://{{ $labels.instance }}/status quotes the server's error. slipway rollback "
        "{{ $labels.model }} LABEL ends the attempt; after mending the cause, slipway promote "
        "{{ $labels.model }}:VERSION LABEL --wait --agent http://{{ $labels.instance }} --retry makes another.",
    )
    yield Alert(
        "SlipwaySyncFailing",
        expression="sum by (job, instance, model, kind) (\n"
        '  increase(slipway_sync_failures_total{kind=~"download|load|disk"}[30m])\n'
        ") >= 3",
        lasting="1m",
        severity="warning",
        summary="The agent at {{ $labels.instance }} fails again and again: {{ $labels.kind }}",
        means="Three times in half an hour or more, for {{ $labels.model }} (for the directory as a whole where "
        "that is empty). It tries again by itself, ever more rarely.",
        do="download: slipway verify {{ $labels.model }}, then the network. load: the server's log, memory most "
        "often. disk: free space, or slipway sync --keep 0.",
    )
    yield _unread_registry(
        "slipway_sync", limits, "SlipwaySyncRegistryUnreadable", "promotions and rollbacks do not arrive"
    )
    yield Alert(
        "SlipwayAgentRestarting",
        expression='changes(process_start_time_seconds{job=~"slipway-sync|slipway-gateway"}[30m]) >= 3',
        lasting="1m",
        severity="warning",
        summary="The agent {{ $labels.job }} at {{ $labels.instance }} starts again and again",
        means="In Kubernetes its pod is taken out of the Services each time, until the agent is ready again. An agent "
        "that begins anew also forgets since when it lags: SlipwaySyncLagging may be silent.",
        do="Read its log, and see whether its memory is limited below what it needs.",
    )


def of_gateways(limits: Thresholds) -> Iterator[Alert]:
    """What gateways' agents tell."""
    yield Alert(
        "SlipwayGatewayLagging",
        expression=f"slipway_gateway_lag_seconds > {promql_number(limits.gateway_lag)}",
        lasting="1m",
        severity="warning",
        summary="The gateway at {{ $labels.instance }} does not share the requests to {{ $labels.model }} as the "
        "registry wants",
        means="For {{ $value | humanizeDuration }} another weight or version was in force in its Envoy than "
        "wanted. A rollout waits for it; an aborted one still sends requests to the canary here.",
        do="slipway_gateway_weight and slipway_gateway_wanted_weight tell the weights. Read the gateway's log: "
        "Envoy refuses a configuration with a reason. Take this gateway out of your load balancer if a bad "
        "canary must go now.",
    )
    yield Alert(
        "SlipwayGatewayEnvoyDown",
        expression="slipway_gateway_envoy_up == 0",
        lasting="1m",
        severity="critical",
        summary="Envoy does not answer its agent at {{ $labels.instance }}",
        means="Requests through this gateway most likely fail.",
        do="See whether the process runs, and its log. Your load balancer should have taken the gateway out by itself.",
    )
    yield _unread_registry(
        "slipway_gateway",
        limits,
        "SlipwayGatewayRegistryUnreadable",
        "the weights stand as they were; an abort does not arrive",
    )
    yield Alert(
        "SlipwayCanaryStandsLong",
        expression=f"{_WEIGHT} > 0",
        lasting=promql_duration(limits.rollout_hours),
        severity="warning",
        summary="The canary of {{ $labels.model }} has had requests for more than "
        f"{limits.rollout_hours:g} h, {{{{ $value | humanize }}}} % of late",
        means="A rollout stands still: paused for want of requests or of a verdict, or whoever led it is gone.",
        do="slipway rollout {{ $labels.model }} --status tells why. Then slipway rollout {{ $labels.model }} "
        "--resume, or --abort.",
    )


def of_targets(limits: Thresholds, *, gateway: bool) -> Iterator[Alert]:
    """What Prometheus sees of them by itself.

    Args:
        limits: How long a load may take.
        gateway: Whether there are gateways.
    """
    yield Alert(
        "SlipwayServerDown",
        expression=_down("and"),
        lasting="2m",
        severity="critical",
        summary="The model server at {{ $labels.instance }} does not answer ({{ $labels.job }})",
        means="With job slipway-sync its agent gets no answer over REST; with job tf-serving Prometheus gets no "
        "metrics, which for a server that works is a server without --monitoring_config_file.",
        do="See whether the process runs, and its log: memory, most often. A version that kills it as it loads "
        "is taken out by the agent after three times; curl http://AGENT:8502/status names it.",
    )
    yield Alert(
        "SlipwayServerNotStarted",
        expression=_down("unless"),
        lasting=f"{round(limits.lag)}s",
        severity="warning",
        summary="The model server at {{ $labels.instance }} does not come up ({{ $labels.job }})",
        means="It has not answered for longer than a load takes, nor within the last day: a new server that cannot "
        "start, one that waits for its label to name something, as a canary's may before the first rollout, or one "
        "that SlipwayServerDown told of a day ago.",
        do="Its log, and its agent's: curl http://AGENT:8502/status tells what that waits for. Without "
        "--monitoring_config_file a server that works has no metrics either. If it is not to be there, take it out "
        "of Prometheus' targets.",
    )
    jobs = "slipway-sync|slipway-gateway" if gateway else "slipway-sync"
    agents = f'up{{job=~"{jobs}"}}'
    yield Alert(
        "SlipwayAgentDown",
        expression=f"{agents} == 0",
        lasting="5m",
        severity="warning",
        summary="The agent {{ $labels.job }} at {{ $labels.instance }} cannot be asked",
        means="In Kubernetes its pod is taken out of the Services with it, and the other pods get its requests; "
        "elsewhere requests are answered without it. Promotions, rollbacks and weights do not arrive there, and what "
        "else it would tell is unknown.",
        do="See whether the process runs and listens where Prometheus asks: slipway sync --listen is loopback "
        "unless told otherwise.",
    )
    yield Alert(
        "SlipwayMostAgentsDown",
        expression=_most_down(agents, gateway=gateway),
        lasting="2m",
        severity="critical",
        summary="Of the agents {{ $labels.job }} {{ with $labels.fleet }}of fleet {{ . }} {{ end }}only "
        "{{ $value | humanizePercentage }} can be asked",
        means="In Kubernetes their pods are taken out of the Services with them: the few that are left get all "
        "requests, and where none is left all requests fail, whatever works beside the agents. Elsewhere requests are "
        "answered; no rollback, and no abort of a rollout, arrives at most places.",
        do="So many at once have one cause: what was changed last (image, options, credentials, a network policy), "
        "or memory. Read the log of one, in Kubernetes kubectl logs POD --container agent --previous, and take that "
        "change back.",
    )
    if gateway:
        yield Alert(
            "SlipwayEnvoyDown",
            expression='up{job="envoy"} == 0',
            lasting="2m",
            severity="critical",
            summary="The Envoy at {{ $labels.instance }} cannot be asked",
            means="Requests through it most likely fail; with SlipwayGatewayEnvoyDown beside it they surely do.",
            do="See whether the process runs, and whether its port for metrics is where Prometheus asks: slipway "
            "render envoy --metrics is loopback unless told otherwise.",
        )
    absent = [f'absent(up{{job="{job}"}})' for job in (*JOBS, *(GATEWAY_JOBS if gateway else ()))]
    yield Alert(
        "SlipwayTargetsMissing",
        expression="\n  or\n".join(absent),
        lasting="5m",
        severity="critical",
        summary="Prometheus knows no target of the job {{ $labels.job }}",
        means="No alert of these targets can fire: nobody watches them. It says nothing of whether they work.",
        do="Look at Prometheus' Targets page, and at where its configuration finds them (slipway render prometheus).",
    )


def _down(memory: str) -> str:
    """Servers that do not answer.

    Args:
        memory: `and` for those that did answer within a day, `unless` for those that did not: who loads its first
            models, or waits for a first label, takes no requests from anybody.
    """
    return "\n  or\n".join(f"({up} == 0 {memory} max_over_time({up}[{_REMEMBERED}]) == 1)" for up in _ANSWERS)


def _most_down(agents: str, *, gateway: bool) -> str:
    """Fleets, and gateways, most of whose agents cannot be asked, of two at least: the share that can.

    Those count that said last, within a day, that requests may come: not those of a canary's fleet between rollouts. A
    fleet of one agent has no most. Outside Kubernetes one that is down fails no request, and nothing in `up` tells
    where it runs; SlipwayAgentDown tells of it.

    Args:
        agents: Selects their `up`.
        gateway: Whether there are gateways.
    """
    said = ["slipway_sync_ready", *(["slipway_gateway_ready"] if gateway else [])]
    were_ready = " or ".join(f"last_over_time({ready}[{_REMEMBERED}]) == 1" for ready in said)
    # An address may have been that of another fleet's pod.
    counted = f"and on (job, instance, fleet) ({were_ready})"
    return (
        # Of agents that crash again and again one or another is up for a moment, at which `for` would begin anew.
        f"avg by (job, fleet) (avg_over_time({agents}[1m]) {counted}) < {promql_number(_MOST)}\n"
        "  and\n"
        f"count by (job, fleet) ({agents} {counted}) >= 2"
    )


def _unread_registry(prefix: str, limits: Thresholds, name: str, follows: str) -> Alert:
    age, info = f"{prefix}_registry_age_seconds", f"{prefix}_info"
    return Alert(
        name,
        # One that never read it has no age.
        expression=f"{age} > {promql_number(limits.registry_age)}\n  or\n{info} unless on (job, instance) {age}",
        lasting="2m",
        severity="warning",
        summary="The agent {{ $labels.job }} at {{ $labels.instance }} cannot read the registry",
        means=f"Requests are answered as before, but {follows}.",
        do="From that machine, with its credentials: slipway list --registry URL tells what is wrong: network, "
        "credentials, or the store itself.",
    )
