"""A change of labels or versions, as JSON and as a sentence. Pure.

`promote`, `rollback`, `unlabel`, each item of `retire`, the label of `package` and the flow `promote-model`
tell in one form what they did:

    {"registry", "model", "dry_run", "changed",
     "revision", "action", "label", "from", "to", "versions", "forget", "when", "who", "why", "run",
     "traffic", "evidence"}

All but the first line is how `history` tells of a transition. Where nothing had to be changed no transition was made:
`revision`, `when`, `who`, `why` and `run` are null then, and the rest says how things stand. `traffic` is the rollout
as a transition left it, null where it is over or the transition is none of a rollout's; `evidence` what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.rollout_sentences import rollout_sentence

if TYPE_CHECKING:
    from model_registry.state import Record, Transition


def change_document(
    registry: str, model: str, record: Record | None, *, asked: Transition | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """A change as `--json` prints it.

    Args:
        registry: The registry's URI.
        model: Whose labels and versions these are.
        record: What was done, or would be; None if it was so already.
        asked: What was asked for, to be shown where nothing had to be done.
        dry_run: Whether it was only held to the rules.
    """
    document = {"registry": registry, "model": model, "dry_run": dry_run, "changed": record is not None and not dry_run}
    if record is not None:
        return document | transition_document(record)
    assert asked is not None
    unmade: dict[str, Any] = {"when": None, "who": None, "why": None, "run": None, "traffic": None, "evidence": []}
    return document | {"revision": None, **_transition(asked), **unmade}


def transition_document(record: Record) -> dict[str, Any]:
    """A transition as `--json` prints it."""
    origin, rollout = record.origin, record.transition.traffic
    return {
        "revision": record.revision,
        **_transition(record.transition),
        "when": record.when,
        "who": origin.who,
        "why": origin.why,
        "run": asdict(origin.run) if origin.run else None,
        "traffic": asdict(rollout.after) if rollout and rollout.after else None,
        "evidence": [asdict(each) for each in origin.evidence],
    }


def change_sentence(change: Mapping[str, Any]) -> str:
    """A change as a person reads it.

    Args:
        change: As `change_document` makes it.
    """
    from model_registry.state import OF_A_ROLLOUT

    model, label = change["model"], change["label"]
    versions = ", ".join(f"{model}:{version}" for version in change["versions"])
    if change["revision"] is None:
        if label is None:
            return f"{versions} {'is' if len(change['versions']) == 1 else 'are'} retired already"
        if change["to"] is None:
            return f"would move {model}@{label}: {_named(model, change['from'])} -> the new version"
        return f"{model}@{label} names {model}:{change['to']} already"
    done = "" if change["dry_run"] else f" (revision {change['revision']})"
    if change["action"] in OF_A_ROLLOUT:
        return rollout_sentence(change) + done
    if label is None:
        return f"would retire {versions}" if change["dry_run"] else f"{versions} retired{done}"
    before, after = _named(model, change["from"]), _named(model, change["to"])
    return f"{'would move ' if change['dry_run'] else ''}{model}@{label}: {before} -> {after}{done}"


def _named(model: str, version: int | None) -> str:
    return "nothing" if version is None else f"{model}:{version}"


def _transition(transition: Transition) -> dict[str, Any]:
    return {
        "action": transition.action,
        "label": transition.label,
        "from": transition.from_version,
        "to": transition.to_version,
        "versions": list(transition.versions),
        "forget": transition.forget,
    }
