"""What is garbage in a registry, and why: the rules, as pure functions.

    1. What a label names or may be rolled back to is never garbage, whatever else is known of it.
    2. Of the committed versions the newest are kept, as many as asked for; the others are retired: no
       label may name them again. Readers that began before go on reading for the grace. Only a manifest
       that can be read and trusted counts as new: rubbish with high numbers would push out what is good.
    3. A retired version is garbage once it has been retired for the grace. Its manifest is swapped for a
       tombstone before the first file goes. A label never comes back to a retired version, so nothing
       that was promoted meanwhile can be hit: who promotes and who retires swap the same document.
    4. A number that was reserved and came to nothing is an orphan, once its reservation, its files and the
       claim that names it are all older than the grace: a publisher at work renews its claim. A tombstone
       is created where its manifest would go, and only then, by whoever created it, the files are deleted.
       A publisher that was only slow finds the tombstone at its own commit. That arbiter, and not the
       grace, is what makes this safe.
    5. Files at a number with a tombstone are garbage at once: nobody can ever read them. They come from a
       late publisher, or from a collection that was interrupted. If the tombstone says that the place was
       occupied by somebody else's files, they stay.
    6. Files at a number that nobody reserved are not ours, and stay.
    7. A run's staging directory is garbage once all in it is older than the grace and no living process
       has it; so is what an interrupted write left behind.

Every step can be the last before a crash: what it leaves is found by one of the rules again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from model_registry import paths
from model_registry.inventory import NO_FILES, Files, Inventory
from model_registry.storage.base import Leftover
from model_registry.tombstone import Tombstone

Kind = Literal["retire", "version", "orphan", "remains", "staging", "leftover"]


@dataclass(frozen=True)
class Item:
    """One thing to do, or that was done.

    Attributes:
        kind: `retire` a version; delete a retired `version`, an `orphan` that was never committed, the
            `remains` at a number that was given up, a run's `staging` directory, or the `leftover` of a write.
        name: Of a version as people name it, such as `digits:3`; otherwise where it lies in the store.
        why: For a person.
        files: How many are deleted.
        bytes: Their size.
        age: Seconds since a version was committed, for one to be retired; since its retirement, for one to be
            deleted; otherwise since the youngest of it was written.
        model: Whose it is; None for what belongs to no model.
        version: Its number; None for what is none.
    """

    kind: Kind
    name: str
    why: str
    files: int
    bytes: int
    age: float
    model: str | None = None
    version: int | None = None


@dataclass(frozen=True)
class Note:
    """Something that stays although it looks like garbage.

    Attributes:
        name: As in `Item`.
        why: For a person.
    """

    name: str
    why: str


@dataclass(frozen=True)
class Newest:
    """The versions that are kept for being new.

    Attributes:
        asked: How many were to be kept.
        versions: Those whose manifests can be read and trusted; nothing else counts.
        unreadable: Why the others that were met among them count for nothing. They stay, too.
    """

    asked: int
    versions: frozenset[int]
    unreadable: Mapping[int, str]


@dataclass(frozen=True)
class Verdict:
    """What is garbage, and what only looks like it."""

    items: tuple[Item, ...] = ()
    notes: tuple[Note, ...] = ()


def suspects(found: Inventory, grace: float) -> list[int]:
    """The numbers that may be orphans; what the claims on them say decides."""
    ended = found.committed.keys() | found.buried | found.state.needed()
    return [
        number
        for number, age in sorted(found.reserved.items())
        if number not in ended and min(age, found.at(number).age) >= grace
    ]


def graves(found: Inventory) -> list[int]:
    """The numbers whose tombstone must be read, since files lie there or a retirement is still noted."""
    concerned = found.files.keys() & found.reserved.keys() | found.state.retired.keys()
    return sorted(found.buried & concerned)


def judge(
    found: Inventory,
    *,
    newest: Newest | None,
    grace: float,
    claims: Mapping[int, float],
    tombstones: Mapping[int, Tombstone],
) -> Verdict:
    """Applies the rules to one model.

    Args:
        found: What there is of it.
        newest: What stays whatever labels name; None retires nothing.
        grace: Seconds.
        claims: Of the suspects that a claim names, the seconds since it was renewed.
        tombstones: Those of the graves that can be read.
    """
    return merged(
        (
            _superfluous(found, newest),
            _retired(found, grace, tombstones),
            _orphans(found, grace, claims),
            _remains(found, tombstones),
            _foreign(found),
        )
    )


def merged(verdicts: Iterable[Verdict]) -> Verdict:
    """All of them in one, in their order."""
    made = [*verdicts]
    return Verdict(
        tuple(item for verdict in made for item in verdict.items),
        tuple(note for verdict in made for note in verdict.notes),
    )


def judge_staging(runs: Mapping[str, Files], held: Collection[str], grace: float) -> Verdict:
    """Applies the rule on staging directories.

    Args:
        runs: What lies in each, by the run's name.
        held: Those that a living process has.
        grace: Seconds.
    """
    old = {run: files for run, files in sorted(runs.items()) if files.age >= grace}
    items = (
        Item("staging", paths.staging(run), "its run ended without removing it", files.count, files.bytes, files.age)
        for run, files in old.items()
        if run not in held
    )
    notes = (Note(paths.staging(run), "a process that still lives works in it") for run in old if run in held)
    return Verdict(tuple(items), tuple(notes))


def judge_leftovers(leftovers: Iterable[Leftover], grace: float) -> Verdict:
    """Applies the rule on what interrupted writes left behind."""
    why = "a write that was interrupted left it"
    return Verdict(
        tuple(Item("leftover", left.name, why, 1, left.size, left.age) for left in leftovers if left.age >= grace)
    )


def _superfluous(found: Inventory, newest: Newest | None) -> Verdict:
    if newest is None:
        return Verdict()
    needed = found.state.needed()
    beyond = sorted(found.committed.keys() - found.state.retired.keys() - newest.versions, reverse=True)
    which = "not the newest" if newest.asked == 1 else f"not among the {newest.asked} newest"
    items, notes = [], []
    for version in beyond:
        if version in newest.unreadable:
            notes.append(Note(found.name(version), f"it does not count as new: {newest.unreadable[version]}"))
        elif version in needed:
            notes.append(Note(found.name(version), _need(found, version)))
        else:
            why = f"{which}, and no label needs it"
            items.append(_item("retire", found, version, why, found.committed[version]))
    return Verdict(tuple(items), tuple(notes))


def _retired(found: Inventory, grace: float, tombstones: Mapping[int, Tombstone]) -> Verdict:
    items, notes = [], []
    for version, revision in sorted(found.state.retired.items()):
        age = found.retired[version]
        if version in found.state.needed():  # no state that can be read says both
            continue
        if version in found.committed and age < grace:
            notes.append(Note(found.name(version), f"retired at revision {revision}, and the grace is not over yet"))
        elif version in found.committed:
            items.append(_item("version", found, version, f"retired at revision {revision}", age))
        elif version in tombstones:
            why = f"retired at revision {revision}; its collection was interrupted"
            items.append(_item("version", found, version, why, age))
    return Verdict(tuple(items), tuple(notes))


def _orphans(found: Inventory, grace: float, claims: Mapping[int, float]) -> Verdict:
    items = []
    for number in suspects(found, grace):
        age = min(found.reserved[number], found.at(number).age, claims.get(number, math.inf))
        if age >= grace:
            items.append(_item("orphan", found, number, "reserved and never committed", age))
    lost = found.state.needed() - found.committed.keys() - found.buried
    return Verdict(
        tuple(items),
        tuple(Note(found.name(number), f"{_need(found, number)}; its manifest is gone") for number in sorted(lost)),
    )


def _remains(found: Inventory, tombstones: Mapping[int, Tombstone]) -> Verdict:
    items, notes = [], []
    for number in graves(found):
        tombstone = tombstones.get(number)
        if tombstone is None:
            notes.append(Note(found.name(number), "what lies where its manifest would cannot be read"))
        elif number in found.state.retired:
            continue
        elif number in found.state.needed():
            notes.append(Note(found.name(number), f"{_need(found, number)}; it has a tombstone: {tombstone.why}"))
        elif tombstone.occupied:
            notes.append(Note(found.name(number), "the files there are not its own"))
        else:
            why = f"it was given up: {tombstone.why}"
            items.append(_item("remains", found, number, why, found.at(number).age))
    return Verdict(tuple(items), tuple(notes))


def _foreign(found: Inventory) -> Verdict:
    ours = found.reserved.keys() | found.committed.keys()
    notes = (
        Note(found.name(number), "nobody reserved this number: the files there are not ours")
        for number in sorted(found.files.keys() - ours)
    )
    return Verdict(notes=tuple(notes))


def _item(kind: Kind, found: Inventory, number: int, why: str, age: float) -> Item:
    files = NO_FILES if kind == "retire" else found.at(number)
    return Item(kind, found.name(number), why, files.count, files.bytes, age, found.model, number)


def _need(found: Inventory, number: int) -> str:
    if labels := found.state.labels_of(number):
        return f"{', '.join(f'{found.model}@{label}' for label in labels)} names it"
    into = (f"{found.model}@{label}" for label, past in found.state.pasts.items() if number in past.versions)
    return f"{', '.join(into)} may be rolled back to it"
