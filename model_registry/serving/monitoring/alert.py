"""What an alert is, and from where on something is wrong. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_registry.errors import InvalidInputError

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Thresholds:
    """From where on something is wrong.

    Attributes:
        latency: Seconds; of the 99th percentile.
        error_rate: A share of the requests.
        requests: As many in five minutes, at least, for either of these to be judged.
        failures: As many in a quarter of an hour, and not one answer between them.
        lag: Seconds that a server may answer otherwise than the registry wants: what a load takes at the longest. The
            agent gives one up after 900, its own default.
        gateway_lag: Seconds that a gateway may take to bring a weight into force.
        registry_age: Seconds since the registry was read last.
        rollout_hours: How long a canary may have requests.
    """

    latency: float = 0.5
    error_rate: float = 0.01
    requests: int = 100
    failures: int = 5
    lag: float = 1200
    gateway_lag: float = 120
    registry_age: float = 300
    rollout_hours: float = 24

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < float("inf"):
                raise InvalidInputError(f"the threshold {name} is {value}: expected a number above 0")
        if self.error_rate >= 1:
            raise InvalidInputError(
                f"the error rate is {self.error_rate}: expected a share of the requests, below 1",
                hint="0.01 is one in a hundred",
            )


@dataclass(frozen=True)
class Alert:
    """What Prometheus watches for.

    Attributes:
        name: Its name, and the heading of its runbook.
        expression: PromQL; it is on where there are samples.
        lasting: For how long, as Prometheus writes it, before anybody is told.
        severity: `critical` for what wakes somebody: requests fail, or nobody can tell whether they do. `warning` for
            what the next working day is early enough for.
        summary: One line, a template of Prometheus.
        means: What it means, likewise.
        do: What to do at three in the morning, likewise.
    """

    name: str
    expression: str
    lasting: str
    severity: Severity
    summary: str
    means: str
    do: str


def promql_number(value: float) -> str:
    """A threshold as PromQL has it, digit for digit."""
    return repr(int(value)) if value == int(value) else repr(value)


def promql_duration(hours: float) -> str:
    """Whole seconds, as Prometheus writes durations."""
    return f"{round(hours * 3600)}s" if hours * 3600 % 3600 else f"{round(hours)}h"
