"""A plot of a rollout: canary and stable at each look, metric by metric, with the weight that canary had."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from model_registry.evidence import Evidence
from model_registry.rollout.report import Look

_METRICS = (("error_rate", "errors, %", 100.0), ("p50", "median, ms", 1.0), ("p99", "99th percentile, ms", 1.0))
_CANARY, _STABLE, _WORSE = "#d95f02", "#1b6ca8", "#c00000"
_MINUTE = 60.0


def plot(model: str, version: int, baseline: int, looks: Sequence[Look]) -> bytes:
    """Draws the looks of a rollout as SVG.

    A line is what was measured, the band beside it leads to the confidence bound that was held against the other side.

    Args:
        model: Its name.
        version: The candidate.
        baseline: What it was held against.
        looks: In the order of time; at least one.
    """
    # Not pyplot: that keeps figures in the process, and looks for a display.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    began = looks[0].time
    minutes = [(look.time - began) / _MINUTE for look in looks]
    with rc_context({"svg.hashsalt": "slipway", "font.size": 9}):
        figure = Figure(figsize=(7.5, 6.0), layout="constrained")
        panels = figure.subplots(len(_METRICS), 1, sharex=True)
        for panel, (metric, title, factor) in zip(panels, _METRICS, strict=True):
            found = [_of(look, metric) for look in looks]
            _draw(panel, minutes, found, factor, f"canary, {model}:{version}", f"stable, {model}:{baseline}")
            panel.set_ylabel(title)
            panel.set_ylim(bottom=0)
            panel.grid(alpha=0.3)
        _mark_weights(panels, minutes, looks)
        panels[0].legend(loc="best", fontsize=8)
        panels[-1].set_xlabel("minutes since the first look")
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()


def _draw(
    panel: Any, minutes: Sequence[float], found: Sequence[Evidence | None], factor: float, canary: str, stable: str
) -> None:
    for name, value, bound, colour in (
        (canary, "canary", "canary_bound", _CANARY),
        (stable, "stable", "stable_bound", _STABLE),
    ):
        values = [_scaled(evidence, value, factor) for evidence in found]
        bounds = [_scaled(evidence, bound, factor) for evidence in found]
        panel.plot(minutes, values, color=colour, label=name, marker="o", markersize=3)
        panel.fill_between(minutes, values, bounds, color=colour, alpha=0.15, linewidth=0)
    worse = [
        (minute, _scaled(evidence, "canary", factor))
        for minute, evidence in zip(minutes, found, strict=True)
        if evidence and evidence.verdict == "worse"
    ]
    if worse:
        panel.plot(*zip(*worse, strict=True), "x", color=_WORSE, markersize=9, markeredgewidth=2, label="worse")


def _mark_weights(panels: Sequence[Any], minutes: Sequence[float], looks: Sequence[Look]) -> None:
    for index, look in enumerate(looks):
        if index == 0 or look.weight != looks[index - 1].weight:
            for panel in panels:
                panel.axvline(minutes[index], color="grey", linewidth=0.8, linestyle=":")
            panels[0].annotate(
                f"{look.weight} %", (minutes[index], 1.02), xycoords=("data", "axes fraction"), fontsize=8, color="grey"
            )


def _of(look: Look, metric: str) -> Evidence | None:
    return next((evidence for evidence in look.evidence if evidence.metric == metric), None)


def _scaled(evidence: Evidence | None, name: str, factor: float) -> float:
    value = getattr(evidence, name) if evidence else None
    return float("nan") if value is None else factor * float(value)
