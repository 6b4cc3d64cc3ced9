"""What models.config says while there is no server: what one may be started with. Pure.

A version that cannot be loaded ends a server that starts with it, and every model with it. So the file names what this
server had AVAILABLE before, and nothing else but at the very first start, where there is no such thing. That it was
AVAILABLE does not tell that it is still harmless: so among such versions the labels follow whoever moves them, and a
rollback reaches a server that dies at each start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from model_registry.serving.model_config import ServedModel
from model_registry.serving.sync.situation import Situation, Verdict
from model_registry.serving.sync.sync_state import Remembered


def prepare(
    remembered: Remembered | None,
    wanted: Mapping[str, int] | None,
    verified: frozenset[int],
    *,
    first: bool,
    name: str,
    base_path: str,
) -> ServedModel | None:
    """What the file says of a model before a server starts, and while no agent is running.

    Args:
        remembered: What was written of it last; None if nothing.
        wanted: The version that each label names in the registry; None if that could not be read.
        verified: The versions on this disk of which every byte was verified.
        first: Whether no version of any model was ever AVAILABLE here (`AgentMemory.first`): then the labels'
            versions are tried.
        name: The model's.
        base_path: Where its versions lie, as the server sees it.
    """
    remembered = remembered or Remembered()
    safe = verified - remembered.failed.keys()
    if not first:
        safe &= remembered.proven
    labels = {}
    for label in sorted(remembered.labels if wanted is None else wanted):
        target, known = (wanted or {}).get(label), remembered.labels.get(label)
        for version in (target, known):
            if version in safe:
                labels[label] = version
                break
    return ServedModel(name, base_path, tuple(sorted({*labels.values()})), labels) if labels else None


def remember(remembered: Remembered, labels: Mapping[str, int]) -> Remembered:
    """What is remembered together with a file for a server to start with (rule 8).

    Args:
        remembered: What was written last.
        labels: What those of the file name.
    """
    proven = {label: version for label, version in labels.items() if version in remembered.proven}
    return replace(remembered, labels={**remembered.labels, **proven})


def withdraw(situation: Situation) -> Verdict:
    """What the file says while the server is gone, which may be because it died of a version (rules 4 and 6)."""
    seen, remembered, progress = situation.seen, situation.remembered, situation.progress
    silent, labels = progress.silent, _safe_labels(situation, unproven=True)
    if silent is None or labels != situation.labels:
        silent = seen.now
    elif seen.now - silent >= situation.settings.load_timeout:
        labels = _safe_labels(situation, unproven=False)
    suspects = {*situation.listed} & {*situation.goal.values()}
    suspects -= {*situation.labels.values()} | {*remembered.loaded}
    strikes = {**remembered.strikes, **{version: remembered.strikes.get(version, 0) + 1 for version in suspects}}
    failed = {
        version: f"the server went away {count} times while it was to load this version"
        for version, count in strikes.items()
        if count >= situation.settings.strikes
    }
    return Verdict(
        listed=frozenset(labels.values()),
        labels=labels,
        remembered=replace(
            remember(remembered, labels),
            strikes={version: count for version, count in strikes.items() if version not in failed},
            failed={**remembered.failed, **failed},
        ),
        progress=replace(progress, stays={}, answers={}, asked=frozenset(labels), confirmed=None, silent=silent),
    )


def _safe_labels(situation: Situation, *, unproven: bool) -> dict[str, int]:
    """The labels of the file: as wanted, or else as they are, or else as remembered, whichever may be started with.

    None is added: a server that is coming up by the file as it is would refuse one whose version it does not have.

    Args:
        situation: The look.
        unproven: Whether that may be a version that was never AVAILABLE, where nothing else ever was.
    """
    seen, remembered = situation.seen, situation.remembered
    safe = seen.here - remembered.failed.keys()
    if not (seen.first and unproven):
        safe &= remembered.proven
    found = {}
    for label in situation.labels.keys() & situation.goal.keys():
        for version in (situation.goal[label], situation.labels[label], remembered.labels.get(label)):
            if version in safe:
                found[label] = version
                break
    return found
