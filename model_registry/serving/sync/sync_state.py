"""What a decision about one model beside one server is made of: what is seen, remembered, and follows. Pure.

Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

from model_registry.servable import Version
from model_registry.serving.model_config import ServedModel
from model_registry.serving.sync.sync_report import VersionReport
from model_registry.serving.version_status import VersionStatus
from model_registry.state import Label, Revision


@dataclass(frozen=True)
class Settings:
    """How patient an agent is. All in seconds but `strikes`.

    Attributes:
        settle: What a server needs to notice a new models.config and to begin with what it says.
        drain: Between the server's word that its labels have moved and the old version's leave.
        load_timeout: What a version may take to be loaded.
        stagger: How long this agent waits for its turn before it lets a version be loaded.
        strikes: How often the server may go away while it loads a version, before that version counts as failed.
    """

    settle: float = 5.0
    drain: float = 5.0
    load_timeout: float = 900.0
    stagger: float = 0.0
    strikes: int = 3


@dataclass(frozen=True)
class Remembered:
    """What survives the agent, of one model.

    Attributes:
        revision: The highest of the registry's state that was seen.
        labels: What is safe to start a server with: the version that each label was given, once this server had it
            AVAILABLE.
        loaded: The versions that this server had AVAILABLE, of those that matter still or lie on this disk, ascending.
        failed: Why a version could not be loaded. It is not tried again until somebody asks, or until it was not
            wanted for a while.
        strikes: How often the server went away while it loaded a version.
    """

    revision: Revision = 0
    labels: dict[Label, Version] = field(default_factory=dict)
    loaded: tuple[Version, ...] = ()
    failed: dict[Version, str] = field(default_factory=dict)
    strikes: dict[Version, int] = field(default_factory=dict)

    @property
    def proven(self) -> frozenset[int]:
        """The versions that this server had AVAILABLE, so that a start with them is no more than a repetition."""
        return frozenset({*self.loaded, *self.labels.values()})

    def still_wanted(self, wanted: Mapping[str, int] | None, revision: int) -> Remembered:
        """What is left of it by what the registry says: a label that was read to be gone is forgotten.

        Args:
            wanted: The version that each label names; None if that could not be read, and then all is left.
            revision: Of the state that this is from.
        """
        if wanted is None:
            return self
        versions = {*wanted.values()}
        return replace(
            self,
            revision=max(self.revision, revision),
            labels={label: version for label, version in self.labels.items() if label in wanted},
            failed={version: why for version, why in self.failed.items() if version in versions},
            strikes={version: count for version, count in self.strikes.items() if version in versions},
        )


@dataclass(frozen=True)
class Stay:
    """One stay of a version in the config.

    Attributes:
        since: When it was added, or found there by an agent that was restarted.
        certain: From when on AVAILABLE tells that the server has it by this stay, not by one before that it is about
            to end.
        stirred: Whether the server had it in any state but END since.
        lacking: Since when it is not AVAILABLE; None while it is.
        absent: Since when it is END or not known at all; None while it is not.
    """

    since: float
    certain: float
    stirred: bool = False
    lacking: float | None = None
    absent: float | None = None


@dataclass(frozen=True)
class Progress:
    """What an agent knows of a model for as long as it lives.

    Attributes:
        began: Its first look.
        stays: Of the versions in the config.
        left: When a version left the config; what left longer than `settle` ago may be forgotten.
        ready: Since when a version is wanted and here.
        answers: The version that the server last answered with under each label.
        asked: The labels that the server was to be asked for since the last look.
        confirmed: Since when the server answers under every label as the config says, and under no other.
        silent: Since when the server is gone, and is told the same labels; None while it answers.
    """

    began: float | None = None
    stays: Mapping[int, Stay] = field(default_factory=dict)
    left: Mapping[int, float] = field(default_factory=dict)
    ready: Mapping[int, float] = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    confirmed: float | None = None
    silent: float | None = None


class Loading(IntEnum):
    """What a server is loading, as far as it might go down with it.

    Attributes:
        NOTHING: All it was given is AVAILABLE.
        CANDIDATES: At least one version that never went down with it.
        SUSPECT: A version that it went away over before.
    """

    NOTHING = 0
    CANDIDATES = 1
    SUSPECT = 2


@dataclass(frozen=True)
class Seen:
    """One look.

    Attributes:
        wanted: The version that each label names in the registry; None if that could not be read.
        revision: Of the registry's state that `wanted` is from.
        here: The versions that are whole on this disk.
        server: What the server tells of the model's versions; None if it does not answer, empty if it does not know
            the model.
        gone: Whether a server that does not answer has ended, as far as can be told. If not, it is only slow, or
            speaks strangely of this model, and nothing is known.
        first: Whether no version of any model was ever AVAILABLE here (`AgentMemory.first`).
        answered: The version that it answered with, of the labels that the last decision told to ask for; before the
            first one, of those of the file.
        now: When.
        elsewhere: What the server is loading for other models: the highest `Decision.loading` of theirs.
    """

    wanted: Mapping[str, int] | None
    revision: int
    here: frozenset[int]
    server: tuple[VersionStatus, ...] | None
    answered: Mapping[str, int]
    now: float
    elsewhere: Loading = Loading.NOTHING
    gone: bool = True
    first: bool = True


@dataclass(frozen=True)
class Decision:
    """What follows from a look.

    Attributes:
        config: What the file shall say of the model; None if nothing.
        remembered: To be written before the file is.
        progress: For the next look.
        fetch: Versions that are wanted and not here, ascending.
        versions: What to tell of each version that matters; the caller knows of variants and downloads.
        serving: The version that the server answers with under each label, as far as it was asked.
        ask: The labels to ask the server for before the next look. It is an expensive question.
        keep: Versions whose directories must stay.
        loading: What the server is loading for this model, by the config as it shall be.
    """

    config: ServedModel | None
    remembered: Remembered
    progress: Progress
    fetch: tuple[int, ...]
    versions: tuple[VersionReport, ...]
    serving: dict[str, int]
    ask: frozenset[str]
    keep: frozenset[int]
    loading: Loading = Loading.NOTHING
