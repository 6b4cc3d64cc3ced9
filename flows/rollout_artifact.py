"""What a rollout leaves in Prefect: its verdict, the numbers of its looks, and a plot. A page of Markdown; pure."""

from __future__ import annotations

import base64
import time

from flows.rollout_plot import plot
from model_registry.evidence import Evidence
from model_registry.rollout.report import Look, RolloutReport

_SHOWN_LOOKS = 60
_VERDICTS = {"worse": "WORSE"}


def page(report: RolloutReport) -> str:
    """The page: what was decided and why, what that rests on, every look.

    Prefect shows images that are part of the text, and nothing of the page leaves it.
    """
    parts = [f"# {_title(report)}", *([_escaped(why)] if (why := report.why.removeprefix("worse: ")) else [])]
    if report.evidence:
        parts += ["## What this rests on", _evidence_table(report.evidence)]
    if report.looks:
        image = base64.b64encode(plot(report.model, report.version, report.baseline, report.looks)).decode()
        parts += [f"![canary against stable at each look](data:image/svg+xml;base64,{image})"]
        parts += ["## Every look" if len(report.looks) <= _SHOWN_LOOKS else f"## The last {_SHOWN_LOOKS} looks"]
        parts += [_looks_table(report.looks[-_SHOWN_LOOKS:])]
    return "\n\n".join(parts) + "\n"


def _title(report: RolloutReport) -> str:
    name = f"{report.model}:{report.version}"
    words = {
        "promoted": f"{name} was promoted",
        "worse": f"{name} was worse than {report.model}:{report.baseline} and taken back",
        "aborted": f"The rollout of {name} was aborted",
        "paused": f"The rollout of {name} is paused at {report.weight} %",
    }
    by = f" by {_escaped(report.by)}" if report.by else ""
    return words.get(report.outcome or "", f"The rollout of {name} is under way") + by


def _evidence_table(evidence: tuple[Evidence, ...]) -> str:
    rows = [
        "| metric | canary | bound | stable | bound | margin | requests | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in evidence:
        margin = (
            f"+ {100 * each.margin:g} " + ("points" if each.metric == "error_rate" else "%") if each.margin else "-"
        )
        numbers = (each.canary, each.canary_bound, each.stable, each.stable_bound)
        cells = [_metric(each.metric), *(_number(each.metric, number) for number in numbers), margin]
        cells += [f"{each.canary_samples:,} / {each.stable_samples:,}", _VERDICTS.get(each.verdict, each.verdict)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _looks_table(looks: tuple[Look, ...]) -> str:
    metrics = list(dict.fromkeys(each.metric for look in looks for each in look.evidence))
    header = ["time (UTC)", "weight", *map(_metric, metrics), "verdict"]
    rows = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for look in looks:
        found = {each.metric: each for each in look.evidence}
        cells = [time.strftime("%H:%M:%S", time.gmtime(look.time)), f"{look.weight} %"]
        for metric in metrics:
            each = found.get(metric)
            cells.append(f"{_number(metric, each.canary)} / {_number(metric, each.stable)}" if each else "-")
        rows.append(f"| {' | '.join([*cells, _VERDICTS.get(look.verdict, look.verdict)])} |")
    return "\n".join(rows)


def _metric(name: str) -> str:
    return {"error_rate": "errors"}.get(name, _escaped(name))


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    if metric == "error_rate":
        return f"{100 * value:.3g} %"
    return f"{value:.4g} ms" if metric in ("p50", "p99") else f"{value:.4g}"


def _escaped(text: str) -> str:
    """Words of others, PromQL among them, as they are: no markup, no link, no image, and no end of a table's cell."""
    plain = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()<>#+-.!|~&" else letter for letter in plain)
