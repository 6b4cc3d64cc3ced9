"""What one look at one model amounts to, and what is made of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from model_registry.serving.sync.sync_state import Progress, Remembered, Seen, Settings
from model_registry.serving.version_status import VersionStatus


@dataclass(frozen=True)
class Situation:
    """All that a decision is made from.

    Attributes:
        listed: The versions that the file lists.
        labels: What its labels name.
        remembered: What was written last, rid of what is not wanted any more.
        progress: Of the last decision.
        seen: The look.
        settings: How patient to be.
    """

    listed: tuple[int, ...]
    labels: Mapping[str, int]
    remembered: Remembered
    progress: Progress
    seen: Seen
    settings: Settings

    @property
    def server(self) -> dict[int, VersionStatus]:
        """What the server tells, by version."""
        return {status.version: status for status in self.seen.server or ()}

    @property
    def available(self) -> frozenset[int]:
        """The versions that the file lists and the server has AVAILABLE."""
        statuses = self.seen.server or ()
        return frozenset(self.listed) & {status.version for status in statuses if status.state == "AVAILABLE"}

    @property
    def goal(self) -> Mapping[str, int]:
        """What each label is to name: where that could not be read, what it names."""
        return {**self.remembered.labels, **self.labels} if self.seen.wanted is None else self.seen.wanted


@dataclass(frozen=True)
class Verdict:
    """What is made of it.

    Attributes:
        listed: The versions that the file shall list.
        labels: What its labels shall name.
        remembered: To be written before.
        progress: For the next look.
        waits: What a version waits for that is ready to be added.
    """

    listed: frozenset[int]
    labels: Mapping[str, int]
    remembered: Remembered
    progress: Progress
    waits: Mapping[int, str] = field(default_factory=dict)
