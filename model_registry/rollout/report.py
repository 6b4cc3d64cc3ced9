"""What became of a rollout, for people, programs and plots. Pure.

As JSON:

    {"model", "version", "baseline", "outcome", "why", "by", "weight", "phase", "paused", "revision", "stuck",
     "looks": [{"time", "weight", "bake", "verdict", "evidence": [...]}, ...],
     "evidence": [{"metric", "canary", "stable", "canary_bound", "stable_bound", "margin",
                   "canary_samples", "stable_samples", "verdict"}, ...]}
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from model_registry.evidence import Evidence, Verdict
from model_registry.rollout import wording
from model_registry.traffic import Phase

_UNITS = {"error_rate": (100, "%"), "p50": (1, "ms"), "p99": (1, "ms")}

End = Literal["promoted", "worse", "aborted", "paused"]


@dataclass(frozen=True)
class Look:
    """What was thought of the candidate at one time.

    Attributes:
        time: Unix seconds by Prometheus' clock; by that of who looked where it was another run.
        weight: Percent of the requests that it got.
        bake: Which bake of this weight it was, from 1.
        verdict: What follows from all of the evidence.
        evidence: Each metric and check.
    """

    time: float
    weight: int
    bake: int
    verdict: Verdict
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class RolloutReport:
    """How a rollout stands when whoever led it is done with it.

    Attributes:
        model: Whose.
        version: The candidate.
        baseline: What it was to replace.
        outcome: How it ended; `paused` where it has not; None while it is led.
        why: In words.
        by: Who else paused or aborted it; empty where it ended by itself.
        weight: Percent of the requests that canary gets now.
        phase: How far it is; None where it is over.
        paused: Why nobody leads it on; empty where it is not paused.
        revision: Of the state.
        looks: In the order of time.
        evidence: What the last decision rests on.
        stuck: Why the canary label still names a candidate that was withdrawn; empty where it does not.
    """

    model: str
    version: int
    baseline: int
    outcome: End | None
    why: str
    by: str
    weight: int
    phase: Phase | None
    paused: str
    revision: int
    looks: tuple[Look, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    stuck: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        document = asdict(self)
        document["looks"] = list(document["looks"])
        document["evidence"] = list(document["evidence"])
        return document


def stuck_hint(model: str) -> str:
    """What to do about a gateway that cannot be seen to send no requests to canary."""
    return (
        f"mend it, or let Prometheus forget it, and then: slipway rollout {model} --resume; if you know that no "
        f"gateway sends requests there: slipway rollout {model} --abort --unseen"
    )


def in_short(evidence: tuple[Evidence, ...]) -> str:
    """All of it in one line: canary's numbers against those of stable, and what follows."""
    requests = next((f"{each.canary_samples:,} / {each.stable_samples:,} requests, " for each in evidence), "")
    metrics = ", ".join(
        f"{_short_name(each.metric)} {_short(each.metric, each.canary)} / {_short(each.metric, each.stable)}"
        for each in evidence
        if each.metric in _UNITS
    )
    failed = [each for each in evidence if each.metric not in _UNITS and each.verdict == "worse"]
    checks = "".join(f", check {each.metric} failed" for each in failed)
    return f"{requests}{metrics}{checks}: {verdict_of(evidence)}"


def measured(evidence: Evidence) -> str:
    """What was seen of one metric or check."""
    if evidence.metric in _UNITS:
        return wording.measured(evidence)
    return f"check {evidence.metric}: {'no sample' if evidence.canary is None else f'{evidence.canary:g}'}"


def compared(evidence: Evidence) -> str:
    """Likewise, with the bounds that the verdict rests on."""
    return wording.compared(evidence) if evidence.metric in _UNITS else measured(evidence)


def verdict_of(evidence: tuple[Evidence, ...]) -> Verdict:
    """What follows from all of it: one that is worse is enough, and not worse must be every one."""
    verdicts = {each.verdict for each in evidence}
    if "worse" in verdicts:
        return "worse"
    return "not worse" if verdicts == {"not worse"} else "undecided"


def _short_name(metric: str) -> str:
    return metric.replace("_", " ")


def _short(metric: str, value: float | None) -> str:
    factor, unit = _UNITS[metric]
    return "-" if value is None else f"{factor * value:.3g} {unit}"
