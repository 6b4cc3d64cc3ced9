"""What evidence says, in the words of a page at night. Pure."""

from __future__ import annotations

from model_registry.evidence import Evidence
from model_registry.rollout.metrics import ERROR_RATE


def measured(evidence: Evidence) -> str:
    """What was seen: `error rate 5.1 % of 812 requests against 0.1 % of 15,300`."""
    return (
        f"{_name(evidence)} {_value(evidence, evidence.canary)} of {evidence.canary_samples:,} requests against "
        f"{_value(evidence, evidence.stable)} of {evidence.stable_samples:,}"
    )


def compared(evidence: Evidence) -> str:
    """What was seen, and how the bounds compare: whether they say "worse", "not worse" or leave both open."""
    if evidence.canary_bound is None or evidence.stable_bound is None:
        return f"{measured(evidence)}: too few to bound it"
    worse = evidence.verdict == "worse"
    allowed = _allowed(evidence, evidence.stable_bound)
    return (
        f"{measured(evidence)}: {'at least' if worse else 'at most'} {_value(evidence, evidence.canary_bound)}, "
        f"with {_value(evidence, allowed)} allowed (stable has at {'most' if worse else 'least'} "
        f"{_value(evidence, evidence.stable_bound)}, the margin is {_percent(evidence.margin)})"
    )


def lacking(evidence: Evidence, more: int | None) -> str:
    """How the bounds compare, and what it takes to tell.

    Args:
        evidence: Of an undecided metric.
        more: Requests that the canary needs beyond those it had; None if no number would do.
    """
    if not evidence.canary_samples or not evidence.stable_samples:
        idle = "the canary" if not evidence.canary_samples else "stable"
        return f"{_name(evidence)}: {idle} had no requests to judge it by"
    if more is None and evidence.canary_bound is None:
        return f"{measured(evidence)}: so many lie above the last bucket that nothing bounds it"
    if more is None:
        return f"{compared(evidence)}; too near the margin for more requests to settle it"
    return f"{compared(evidence)}; roughly {more:,} more requests to the canary would tell"


def _name(evidence: Evidence) -> str:
    return evidence.metric.replace("_", " ")


def _allowed(evidence: Evidence, bound: float) -> float:
    return bound + evidence.margin if evidence.metric == ERROR_RATE.name else bound * (1 + evidence.margin)


def _value(evidence: Evidence, value: float | None) -> str:
    if value is None:
        return "nothing"
    return _percent(value) if evidence.metric == ERROR_RATE.name else f"{_rounded(value, 3)} ms"


def _percent(share: float) -> str:
    return f"{_rounded(100 * share, 2)} %"


def _rounded(value: float, digits: int) -> str:
    """With that many digits, more where it is larger than they can say."""
    return f"{value:,.0f}" if value >= 10**digits else f"{value:.{digits}g}"
