"""Decides, a look at a time, what models.config says of one model. Pure.

Nothing is taken for granted from one look to the next but the file itself and what was remembered: the agent may have
been ended between any two steps, and the server too. The rules:

1. A label moves only to a version that the server has AVAILABLE in this very look, and has it by the file as it is
   (`stays`). One label that names anything else takes the whole file with it, for every model.
2. Add first, move later, drop last. A version is dropped when no label is to name it or names it in the file, and the
   server has confirmed every label of the model for `drain` seconds.
3. What could not be read removes nothing; nor does a revision lower than one seen before. Labels that were read to be
   gone leave at once, their versions after them.
4. While the server is silent the file says what a server may be started with: the labels as they are, or else as
   remembered, and the versions that they name. A version that it had never had AVAILABLE may be what it went down
   with: it leaves, with a strike; after so many strikes it has failed.
5. A version that fails to load leaves the file and is remembered as failed; the label stays where it is. It is tried
   again when somebody asks, or when it is wanted anew after a time when it was not.
6. Silence may also be a server that dies as it starts, over a version that no server of this directory ever had
   AVAILABLE and that a label names all the same (the very first start). Such a label leaves after `load_timeout`.
7. A label whose version the server has lost goes back to the version that it answers with, or leaves until it is
   loaded again: until then the server would refuse the whole file.
8. What a label names is remembered as soon as the version is AVAILABLE, before the file says so. Were it only once the
   server has answered, a server prepared from memory could go back behind what it served.
9. A version with a strike is loaded alone, so that the next to go down with the server is the culprit.
10. Agents take turns (`stagger`) where there is something to protect: a label that answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from model_registry.serving import candidates
from model_registry.serving import stays as staying
from model_registry.serving.model_config import ServedModel
from model_registry.serving.safe_start import prepare, withdraw
from model_registry.serving.situation import Situation, Verdict
from model_registry.serving.sync_state import Decision, Loading, Progress, Remembered, Seen, Settings, Stay
from model_registry.serving.version_telling import Telling

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
        remembered=_still_wanted(remembered, seen),
        progress=progress,
        seen=seen,
        settings=settings,
    )
    verdict = withdraw(situation) if seen.server is None else _go_on(situation)
    versions = tuple(sorted(verdict.listed))
    return _decision(situation, verdict, ServedModel(name, base_path, versions, verdict.labels) if versions else None)


def retry(remembered: Remembered, progress: Progress, version: int) -> tuple[Remembered, Progress]:
    """Lets a version that failed be tried again."""
    failed = {number: why for number, why in remembered.failed.items() if number != version}
    strikes = {number: count for number, count in remembered.strikes.items() if number != version}
    return replace(remembered, failed=failed, strikes=strikes), progress


def _go_on(situation: Situation) -> Verdict:
    """What the file says while the server answers."""
    seen, progress = situation.seen, situation.progress
    stays = staying.observe(situation.listed, progress, situation.server, seen.now, situation.settings)
    answers = _answers(situation)
    labels = _labels(situation, stays, answers)
    for version in {*situation.labels.values()} - {*labels.values()} - situation.available:
        stays[version] = staying.restart(seen.now, situation.settings)
    failed = candidates.failures(situation, stays, labels)
    remembered = _remembered(situation, labels, failed)
    confirmed = None
    if answers == labels == situation.labels:
        confirmed = seen.now if progress.confirmed is None else progress.confirmed
    listed = {*situation.listed} - failed.keys() - _dropped(situation, labels, confirmed)
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


def _remembered(situation: Situation, labels: Mapping[str, int], failed: Mapping[int, str]) -> Remembered:
    """What is remembered of a look at a server that answers (rules 5 and 8)."""
    before, available = situation.remembered, situation.available
    settled = available | failed.keys()
    return replace(
        before,
        labels={**before.labels, **{label: version for label, version in labels.items() if version in available}},
        loaded=tuple(sorted({*before.loaded} | available)),
        failed={**{version: why for version, why in before.failed.items() if version not in available}, **failed},
        strikes={version: count for version, count in before.strikes.items() if version not in settled},
    )


def _still_wanted(remembered: Remembered, seen: Seen) -> Remembered:
    if seen.wanted is None:
        return remembered
    versions = {*seen.wanted.values()}
    return replace(
        remembered,
        revision=seen.revision,
        labels={label: version for label, version in remembered.labels.items() if label in seen.wanted},
        failed={version: why for version, why in remembered.failed.items() if version in versions},
        strikes={version: count for version, count in remembered.strikes.items() if version in versions},
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
    remembered = replace(remembered, loaded=tuple(version for version in remembered.loaded if version in needed))
    loaded = {version for version, status in situation.server.items() if staying.in_server(status)}
    unsure = seen.here if seen.server is None or seen.wanted is None else frozenset[int]()
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
