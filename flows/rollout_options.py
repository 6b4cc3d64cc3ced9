"""What `slipway rollout` is told, as it is typed: times, percents, margins."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from model_registry.traffic import Plan

PROMETHEUS = "http://127.0.0.1:9090"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST = 30 * 86_400.0
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,6})?"
_METRICS = ("error_rate", "p50", "p99")


def duration(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """Seconds, or what Prometheus writes for them: 90s, 10m, 1h30m. A callback of click."""
    if text is None:
        return None
    seconds = 0.0
    if re.fullmatch(_NUMBER, text):
        seconds = float(text)
    elif re.fullmatch(f"(?:{_NUMBER}[smhd])+", text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(f"({_NUMBER})([smhd])", text))
    if not 0 < seconds <= _LONGEST:
        raise click.BadParameter(f"expected a time up to 30d, such as 90s, 10m or 1h, found {text!r}")
    return seconds


def percents(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Percents of the requests: 5,25,100. A callback of click."""
    if text is None:
        return None
    steps = [step.strip() for step in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,3}", step) for step in steps):
        raise click.BadParameter(f"expected percents such as 5,25,100, found {text!r}")
    return tuple(map(int, steps))


def pairs(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Names and values: error_rate=0.01. A callback of click."""
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not (name and value):
            raise click.BadParameter(f"expected NAME=VALUE, found {text!r}")
        found[name] = value
    return found


def plan_of(options: Mapping[str, Any]) -> Plan:
    """How a rollout goes, as the options say.

    Raises:
        UsageError: If a margin is none.
    """
    from model_registry.traffic import Margins, Plan

    margins = {}
    for name, text in options["margins"].items():
        if name not in _METRICS or not re.fullmatch(_NUMBER, text):
            raise click.UsageError(
                f"--margin: expected {', '.join(_METRICS)} and a share, such as p50=0.25, found {name}={text}"
            )
        margins[name] = float(text)
    plan = Plan(margins=Margins(**margins), checks=options["checks"])
    if options["steps"]:
        plan = replace(plan, steps=options["steps"])
    return replace(plan, bake=options["bake"]) if options["bake"] else plan


def watched(text: str, options: Mapping[str, Any]) -> str:
    """Commands that go on, or end, with what they need to see the same fleet as this one."""
    more = ["--prometheus", options["prometheus"]] if options["prometheus"] != PROMETHEUS else []
    if options["http_config"]:
        more += ["--http-config", str(options["http_config"])]
    for name, value in options["within"].items():
        more += ["--within", f"{name}={value}"]
    asked = f"--resume {shlex.join(more)}"
    return text if not more or asked in text else text.replace("--resume", asked)
