"""Decides, a look at a time, what models.config says of one model. Pure.

Nothing is taken for granted from one look to the next but the file itself and what was remembered: the agent may have
been ended between any two steps, and the server too. The rules:

1. A label moves only to a version that the server has AVAILABLE in this very look, and has it by the file as it is
   (`stays`). One label that names anything else takes the whole file with it, for every model.
2. Add first, move later, drop last. A version is dropped when no label is to name it or names it in the file, and the
   server has confirmed every label of the model for `drain` seconds.
3. What could not be read removes nothing; nor does a revision lower than one seen before. Labels that were read to be
   gone leave at once, their versions after them.
4. While the server is gone the file says what one may be started with: versions that it had AVAILABLE before. Each
   label names the one that is wanted now, so that a rollback reaches a server that dies at every start; or else the
   one that it names, or is remembered to have named, whichever is whole. A version that was never AVAILABLE may be
   what it went down with: it leaves, with a strike; after so many strikes it has failed. A server that is only slow,
   or speaks strangely of a model, is not gone: then nothing changes.
5. A version that fails to load leaves the file and is remembered as failed; the label stays where it is. It is tried
   again when somebody asks, or when it is wanted anew after a time when it was not.
6. At the very first start there is no such version, of any model: the labels name what is wanted, whatever it is. A
   server that is gone may die of it; so they leave once they have named the same for `load_timeout`.
7. A label whose version the server has lost goes back to the version that it answers with, or leaves until it is
   loaded again: until then the server refuses the whole file. So does one that is coming up by an older file, or was
   taken for gone and was not, where rule 4 has moved a label meanwhile: it goes on with what it has, and that is
   listed again first, so that rule 1 holds for the way back too.
8. What a label names is remembered as soon as the version is AVAILABLE, and by rule 4 as soon as the label moves,
   before the file says so. Were it only once the server has answered, a server prepared from memory could go back
   behind what it served. Where the version is not AVAILABLE, what the server answers with is remembered.
9. A version with a strike is loaded alone, so that the next to go down with the server is the culprit.
10. A directory stays while a server may have its version, or be about to load it by a file that it read before.
11. Agents take turns (`stagger`) where there is something to protect: a label that answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from model_registry.serving.model_config import ServedModel
from model_registry.serving.sync import candidates
from model_registry.serving.sync import stays as staying
from model_registry.serving.sync.safe_start import prepare, withdraw
from model_registry.serving.sync.situation import Situation, Verdict
from model_registry.serving.sync.sync_state import Decision, Loading, Progress, Remembered, Seen, Settings, Stay
from model_registry.serving.sync.version_telling import Telling

__all__ = ["Decision", "Loading", "Progress", "Remembered", "Seen", "Settings", "decide", "prepare", "retry"]


def decide(
    config: ServedModel | None,
    remembered: Remembered,
    progress: Progress,
    seen: Seen,
    settings: Settings,
    *,
    name: str,
    base_path: str,
) -> Decision:
    """What follows from one look at one model.

    Args:
        config: What the file says of it now.
        remembered: What was written of it last.
        progress: Of the last decision; `Progress()` after a restart of the agent.
        seen: The look.
        settings: How patient to be.
        name: The model's.
        base_path: Where its versions lie, as the server sees it.
    """
    if seen.wanted is not None and seen.revision < remembered.revision:
        seen = replace(seen, wanted=None)
    if progress.began is None:
        progress = replace(progress, began=seen.now)
    situation = Situation(
        listed=config.versions if config else (),
        labels=dict(config.labels) if config else {},
        remembered=remembered.still_wanted(seen.wanted, seen.revision),
        progress=progress,
        seen=seen,
        settings=settings,
    )
    if seen.server is not None:
        verdict = _go_on(situation)
    elif seen.gone:
        verdict = withdraw(situation)
    else:
        verdict = _leave(situation)
    versions = tuple(sorted(verdict.listed))
    return _decision(situation, verdict, ServedModel(name, base_path, versions, verdict.labels) if versions else None)


def retry(remembered: Remembered, progress: Progress, version: int) -> tuple[Remembered, Progress]:
    """Lets a version that failed be tried again."""
    failed = {number: why for number, why in remembered.failed.items() if number != version}
    strikes = {number: count for number, count in remembered.strikes.items() if number != version}
    return replace(remembered, failed=failed, strikes=strikes), progress


def _leave(situation: Situation) -> Verdict:
    """What the file says while nothing is known of the server: what it said."""
    listed = frozenset(situation.listed)
    return Verdict(listed, situation.labels, situation.remembered, situation.progress)


def _go_on(situation: Situation) -> Verdict:
    """What the file says while the server answers."""
    seen, progress = situation.seen, situation.progress
    stays = staying.observe(situation.listed, progress, situation.server, seen.now, situation.settings)
    answers = _answers(situation)
    for version in {*answers.values()} - {*situation.listed}:
        stays[version] = staying.begin(version, progress, situation.server.get(version), seen.now, situation.settings)
    labels = _labels(situation, stays, answers)
    for version in {*situation.labels.values()} - {*labels.values()} - situation.available:
        stays[version] = staying.restart(seen.now, situation.settings)
    failed = candidates.failures(situation, stays, labels)
    remembered = _remembered(situation, labels, answers, failed)
    confirmed = None
    if answers == labels == situation.labels:
        confirmed = seen.now if progress.confirmed is None else progress.confirmed
    listed = {*situation.listed, *answers.values()} - failed.keys() - _dropped(situation, labels, confirmed)
    added = candidates.additions(situation, remembered, listed, labels)
    return Verdict(
        listed=frozenset(listed | added.stays.keys()),
        labels=labels,
        remembered=remembered,
        progress=replace(
            progress,
            stays={**stays, **added.stays},
            ready=added.ready,
            answers=answers,
            asked=frozenset(label for label in {*labels, *answers} if answers.get(label) != labels.get(label)),
            confirmed=confirmed,
            silent=None,
        ),
        waits=added.waits,
    )


def _answers(situation: Situation) -> dict[str, int]:
    """What the server answers under each label: as it was asked now, or as it was before and still can."""
    progress, server = situation.progress, situation.server
    before = {label: version for label, version in progress.answers.items() if label not in progress.asked}
    answers = {**before, **situation.seen.answered}
    return {label: version for label, version in answers.items() if staying.is_available(server.get(version))}


def _labels(situation: Situation, stays: Mapping[int, Stay], answers: Mapping[str, int]) -> dict[str, int]:
    """What the labels name (rules 1, 3 and 7)."""
    now = situation.seen.now
    certain = {version for version in situation.available if now >= stays[version].certain}
    labels = {}
    for label, target in situation.goal.items():
        current, answered = situation.labels.get(label), answers.get(label)
        if target in certain:
            labels[label] = target
        elif current is None:
            continue
        elif not staying.is_lost(stays[current], now, situation.settings):
            labels[label] = current
        elif answered in situation.listed:
            labels[label] = answered if answered in certain else current
    return labels


def _dropped(situation: Situation, labels: Mapping[str, int], confirmed: float | None) -> set[int]:
    """The versions that leave because nothing needs them (rules 2 and 3)."""
    if situation.seen.wanted is None or confirmed is None:
        return set()
    if situation.seen.now - confirmed < situation.settings.drain:
        return set()
    return {*situation.listed} - {*labels.values()} - {*situation.goal.values()}


def _remembered(
    situation: Situation, labels: Mapping[str, int], answers: Mapping[str, int], failed: Mapping[int, str]
) -> Remembered:
    """What is remembered of a look at a server that answers (rules 5 and 8)."""
    before, available = situation.remembered, situation.available
    settled = available | failed.keys()
    return replace(
        before,
        labels={
            **before.labels,
            **{label: version for label, version in answers.items() if label in labels},
            **{label: version for label, version in labels.items() if version in available},
        },
        loaded=tuple(sorted({*before.loaded} | available)),
        failed={**{version: why for version, why in before.failed.items() if version not in available}, **failed},
        strikes={version: count for version, count in before.strikes.items() if version not in settled},
    )


def _decision(situation: Situation, verdict: Verdict, config: ServedModel | None) -> Decision:
    seen, goal, remembered = situation.seen, {*situation.goal.values()}, verdict.remembered
    left = dict.fromkeys({*situation.listed} - verdict.listed, seen.now)
    progress = replace(
        verdict.progress,
        stays={version: stay for version, stay in verdict.progress.stays.items() if version in verdict.listed},
        left={
            version: since
            for version, since in {**situation.progress.left, **left}.items()
            if seen.now - since < situation.settings.settle
        },
    )
    needed = {*situation.listed, *verdict.listed, *goal, *remembered.labels.values()}
    remembered = replace(
        remembered, loaded=tuple(version for version in remembered.loaded if version in needed | seen.here)
    )
    loaded = {version for version, status in situation.server.items() if staying.in_server(status)}
    fresh = progress.began is None or seen.now - progress.began < situation.settings.settle
    unsure = seen.here if seen.server is None or seen.wanted is None or fresh else progress.left.keys()
    return Decision(
        config=config,
        remembered=remembered,
        progress=progress,
        fetch=tuple(sorted({*(seen.wanted or {}).values()} - seen.here - remembered.failed.keys())),
        versions=Telling(
            seen=seen,
            config=config,
            wanted=goal,
            failed=remembered.failed,
            stays=progress.stays,
            waits=verdict.waits,
            settings=situation.settings,
        ).versions(),
        serving=dict(progress.answers),
        ask=progress.asked,
        keep=frozenset(needed | loaded | unsure),
        loading=candidates.loading(verdict.listed - {*verdict.labels.values()} - situation.available, remembered),
    )
