"""A rollout as a sentence, for the history, the log and whoever asks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_registry.state import Transition
    from model_registry.traffic import Traffic


def rollout_sentence(change: Mapping[str, Any]) -> str:
    """What a rollout did, as a person reads it; without the revision.

    Args:
        change: As flows.changes tells it.
    """
    model, traffic, why = change["model"], change["traffic"], change["why"]
    if traffic is None:  # it is over, and its last label tells of whom
        after = "nothing" if change["to"] is None else f"{model}:{change['to']}"
        return f"rollout of {model}:{change['from']} is over, {model}@{change['label']} names {after}"
    name, weight = f"{model}:{traffic['candidate']}", f"{traffic['weight']} % of the requests"
    if change["action"] == "begin":
        steps = ", ".join(map(str, traffic["plan"]["steps"]))
        begins = f"would roll out {name}" if change["dry_run"] else f"rollout of {name} begins"
        return f"{begins}: {steps} % of the requests, {in_time(traffic['plan']['bake'])} each"
    return {
        "shift": f"{model}: {weight} to {name}",
        "bake": f"{model}: {weight} to {name} in force, judged from now on",
        "pause": f"rollout of {name} paused with {weight}: {traffic['paused']}",
        "resume": f"rollout of {name} taken up, {traffic['phase']} with {weight}",
        "accept": f"{model}@{traffic['stable']}: {model}:{traffic['baseline']} -> {name}, found not worse",
        "withdraw": _withdrawn(traffic, name, _reason(change["evidence"]) or why),
    }[change["action"]]


def rollout_in_history(transition: Transition) -> str:
    """What a rollout did, as short as a column wants it; `model` stands in the command."""
    assert transition.traffic is not None
    traffic, action = transition.traffic.after, transition.action
    said: str = action
    if traffic and action in ("shift", "bake", "pause", "resume"):
        said = f"{action} {traffic.candidate} at {traffic.weight} %"
    elif traffic and traffic.outcome == "promoted" and action == "withdraw":
        said = f"{traffic.candidate} promoted, no more requests to {traffic.canary}"
    elif traffic and action == "withdraw":
        said = f"withdraw {traffic.candidate}, {traffic.outcome}"
    if transition.label is None:
        return said
    before, after = ("nothing" if end is None else end for end in (transition.from_version, transition.to_version))
    return f"{said}, {transition.label}: {before} -> {after}"


def rollout_under_way(model: str, traffic: Traffic) -> str:
    """How a rollout stands."""
    steps = f"step {traffic.step + 1} of {len(traffic.plan.steps)}"
    stands = (
        f"rollout of {model}:{traffic.candidate} under way: {traffic.phase} with {traffic.weight} % of the requests"
    )
    return f"{stands} ({steps}){f', paused: {traffic.paused}' if traffic.paused else ''}"


def in_time(seconds: float) -> str:
    """Seconds as a person types them: `10m`, `90s`."""
    for unit, letter in ((3600, "h"), (60, "m")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g}{letter}"
    return f"{seconds:g}s"


def _withdrawn(traffic: Mapping[str, Any], name: str, why: str) -> str:
    if traffic["outcome"] == "promoted":
        return f"rollout of {name}: {traffic['stable']} has it, no more requests to {traffic['canary']}"
    done = "aborted" if traffic["outcome"] == "aborted" else "withdrawn"
    return f"rollout of {name} {done}{f': {why}' if why else ''}"


def _reason(evidence: list[Mapping[str, Any]]) -> str:
    from model_registry.evidence import Evidence
    from model_registry.rollout.report import measured

    return "; ".join(measured(Evidence(**each)) for each in evidence if each["verdict"] == "worse")
