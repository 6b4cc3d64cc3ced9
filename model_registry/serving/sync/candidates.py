"""Which versions a running server is given to load, and which have failed at it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from model_registry.serving.sync import stays as staying
from model_registry.serving.sync.situation import Situation
from model_registry.serving.sync.sync_state import Loading, Remembered, Stay


@dataclass(frozen=True)
class Additions:
    """What is added.

    Attributes:
        stays: That begin now.
        waits: What other versions wait for that could be added.
        ready: Since when the versions are wanted and here.
    """

    stays: Mapping[int, Stay]
    waits: Mapping[int, str]
    ready: Mapping[int, float]


def failures(situation: Situation, stays: Mapping[int, Stay], labels: Mapping[str, int]) -> dict[int, str]:
    """Why versions have failed that no label names (rule 5)."""
    found = {
        version: staying.failure(stays[version], situation.server.get(version), situation.seen.now, situation.settings)
        for version in {*situation.listed} & {*situation.goal.values()} - {*labels.values()}
    }
    return {version: why for version, why in found.items() if why}


def additions(
    situation: Situation, remembered: Remembered, listed: Collection[int], labels: Mapping[str, int]
) -> Additions:
    """Which versions are added (rules 9 and 11).

    Args:
        situation: The look.
        remembered: As it stands after it.
        listed: The versions that stay in the file.
        labels: What its labels shall name.
    """
    seen, progress, settings, server = situation.seen, situation.progress, situation.settings, situation.server
    wanted = {*(seen.wanted or {}).values()} & seen.here
    ready = {version: progress.ready.get(version, seen.now) for version in wanted}
    protects = not situation.available.isdisjoint(labels.values())
    underway = max(seen.elsewhere, loading({*listed} - {*labels.values()} - situation.available, remembered))
    added: dict[int, Stay] = {}
    waits: dict[int, str] = {}
    for version in sorted(wanted - {*listed} - remembered.failed.keys()):
        struck = version in remembered.strikes
        if protects and seen.now - ready[version] < settings.stagger:
            waits[version] = "its turn has not come"
        elif not staying.may_begin(version, progress, server.get(version), seen.now, settings):
            waits[version] = "the server must notice first that it was taken out"
        elif struck and underway > Loading.NOTHING:
            waits[version] = "the server went away while it was to load it: it is loaded when nothing else is"
        elif underway == Loading.SUSPECT:
            waits[version] = "the server is loading a version that it went away over before"
        else:
            added[version] = staying.begin(version, progress, server.get(version), seen.now, settings)
            underway = max(underway, Loading.SUSPECT if struck else Loading.CANDIDATES)
    return Additions(added, waits, ready)


def loading(versions: Collection[int], remembered: Remembered) -> Loading:
    """What the server is loading, where it is loading these versions."""
    if not versions:
        return Loading.NOTHING
    return Loading.CANDIDATES if remembered.strikes.keys().isdisjoint(versions) else Loading.SUSPECT
