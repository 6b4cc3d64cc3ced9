"""What is wanted of a model: which label names which version, how requests are shared, what is retired. Pure.

`state.json` holds it, swapped whole. The transition that led to it stays in it until the next one,
whose writer first lays it down in `history/`; so history is those records and the last one here.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, with_config

from model_registry.documents import RESTORE, SCHEMA_VERSION, encodable, read
from model_registry.errors import FormatError
from model_registry.evidence import Evidence
from model_registry.paths import LABEL_PATTERN
from model_registry.servable import MAX_VERSION, Run, Version
from model_registry.traffic import Traffic

Revision = Annotated[int, Field(ge=0, le=MAX_VERSION)]
Label = Annotated[str, Field(pattern=f"^(?:{LABEL_PATTERN})$")]
Action = Literal[
    "promote", "follow", "rollback", "unlabel", "retire", "collect",
    "begin", "shift", "bake", "pause", "resume", "accept", "withdraw", "finish",
]  # fmt: skip

# What a rollout does. To begin, canary moves, unless it names the candidate already; to withdraw what was accepted,
# stable moves back.
OF_A_ROLLOUT = frozenset({"begin", "shift", "bake", "pause", "resume", "accept", "withdraw", "finish"})
_MOVES_CANARY = frozenset({"begin", "finish"})
_MOVES_STABLE = frozenset({"accept", "withdraw"})
_MOVES_ALWAYS = frozenset({"accept", "finish"})

# A rollback goes back one step each; what lies further back may be retired.
PAST_STEPS = 10


@dataclass(frozen=True)
class TrafficChange:
    """How a rollout goes on.

    Attributes:
        before: The traffic it was decided on; None as it begins.
        after: The traffic that follows; None when it is over.
    """

    before: Traffic | None
    after: Traffic | None

    @property
    def either(self) -> Traffic | None:
        """One of the two."""
        return self.after or self.before


@dataclass(frozen=True)
class Transition:
    """One change of a state, made absolute: nothing in it depends on the state it is applied to.

    Attributes:
        action: What is done. To follow is to promote what was just packaged; to collect, to say that gc
            deleted retired versions. From `begin` to `finish`, what a rollout does (rollout_transitions).
        label: Which label moves.
        from_version: What the label names before; None if nothing.
        to_version: What it names afterwards; None if nothing.
        versions: What is retired or collected.
        forget: Whether a retired version is taken out of the labels' pasts.
        traffic: How a rollout goes on by it; None if it is no rollout's.
    """

    action: Action
    label: Label | None = None
    from_version: Annotated[Version | None, Field(alias="from")] = None
    to_version: Annotated[Version | None, Field(alias="to")] = None
    versions: tuple[Version, ...] = ()
    forget: bool = False
    traffic: TrafficChange | None = None

    @property
    def complete(self) -> bool:
        """Whether it says what its action needs, and nothing else."""
        if self.action in OF_A_ROLLOUT:
            return self._complete_of_a_rollout
        if self.traffic is not None:
            return False
        moves = self.label is not None and not self.versions
        if self.action in ("promote", "follow"):
            return moves and self.to_version is not None
        if self.action == "rollback":
            return moves and self.from_version is not None and self.to_version is not None
        if self.action == "unlabel":
            return moves and self.from_version is not None and self.to_version is None
        return bool(self.versions) and (self.label, self.from_version, self.to_version) == (None, None, None)

    @property
    def _complete_of_a_rollout(self) -> bool:
        change = self.traffic
        if change is None or (traffic := change.either) is None or self.versions or self.forget:
            return False
        if (change.before is None, change.after is None) != (self.action == "begin", self.action == "finish"):
            return False
        if self.label is None:
            return self.action not in _MOVES_ALWAYS and (self.from_version, self.to_version) == (None, None)
        if self.action not in (_MOVES_CANARY if self.label == traffic.canary else _MOVES_STABLE):
            return False
        return self.label in (traffic.canary, traffic.stable) and self.from_version != self.to_version


@dataclass(frozen=True)
class Origin:
    """Where a transition comes from.

    Attributes:
        who: A person or a service, such as `ann@build-7`.
        why: The reason that was given; empty for none.
        run: The flow run that made it, if one did.
        evidence: What was measured, where that is the reason.
    """

    who: str
    why: str = ""
    run: Run | None = None
    evidence: tuple[Evidence, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "who", encodable(self.who))
        object.__setattr__(self, "why", encodable(self.why))

    @classmethod
    def here(cls, why: str = "", run: Run | None = None) -> Origin:
        """Whoever runs this process, as USER@HOST."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user without a name
            user = f"uid-{os.getuid()}"
        return cls(f"{user}@{socket.gethostname()}", why, run)


@dataclass(frozen=True)
class Record:
    """A transition that was made.

    Attributes:
        revision: Of the state it led to.
        transition: What was done.
        origin: Who did it, and why.
        when: ISO 8601 in UTC, by the clock of who did it.
        write_id: Tells this transition from any other of the same content.
    """

    revision: Revision
    transition: Transition
    origin: Origin
    when: str
    write_id: str
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """The record as it lies in history."""
        return _RECORD.dump_json(self, indent=2, by_alias=True) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Record:
        """Reads a record of history.

        Raises:
            FormatError: If the document is none.
        """
        what = "a record of history"
        record = read(_RECORD, data, key=key, what=what)
        if not record.transition.complete:
            raise FormatError(f"{key} is not {what}: its transition is no {record.transition.action}", hint=RESTORE)
        return record


@dataclass(frozen=True)
class Past:
    """What a label named before.

    Attributes:
        versions: Where rollbacks lead, the next one last.
        highest: The highest version it ever named. A label that follows new versions never goes below it.
    """

    versions: tuple[Version, ...] = ()
    highest: int = 0


@with_config(ConfigDict(extra="forbid"))  # what a newer Slipway put there would be lost by our swap
@dataclass(frozen=True)
class State:
    """The state of a model's labels and versions.

    Attributes:
        revision: Counts transitions.
        labels: The version that each label names.
        pasts: Of each label.
        retired: The revision at which each retired version was; until gc has deleted it.
        traffic: The rollout that is under way; None if none is.
        last_transition: What led here; None before the first.
    """

    revision: Revision = 0
    labels: dict[Label, Version] = field(default_factory=dict)
    pasts: dict[Label, Past] = field(default_factory=dict)
    retired: dict[Version, Revision] = field(default_factory=dict)
    traffic: Traffic | None = None
    last_transition: Record | None = None
    schema_version: int = SCHEMA_VERSION

    def labels_of(self, version: int) -> tuple[str, ...]:
        """The labels that name a version, sorted."""
        return tuple(sorted(label for label, named in self.labels.items() if named == version))

    def needed(self) -> frozenset[int]:
        """The versions that a label names or may be rolled back to, and those of a rollout."""
        past = {version for past in self.pasts.values() for version in past.versions}
        return frozenset(self.labels.values()) | past | (self.traffic.versions() if self.traffic else frozenset())

    def to_json(self) -> bytes:
        """The state as it is stored."""
        return _STATE.dump_json(self, indent=2, by_alias=True) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> State:
        """Reads a state.

        Raises:
            FormatError: If the document is none, or contradicts itself.
        """
        state = read(_STATE, data, key=key, what="a state")
        last = state.last_transition
        if state.revision != (last.revision if last else 0):
            wrong = f"its revision is {state.revision}, and that of its last transition {last and last.revision}"
        elif last and not last.transition.complete:
            wrong = f"its last transition is no {last.transition.action}"
        elif state.labels.keys() != state.pasts.keys():
            wrong = "`labels` and `pasts` speak of different labels"
        elif both := state.needed() & state.retired.keys():
            wrong = f"version {min(both)} is retired, and a label names it or may be rolled back to it"
        elif state.traffic and (wrong := state.traffic.contradiction() or _astray(state.labels, state.traffic)):
            wrong = f"of its traffic: {wrong}"
        else:
            return state
        raise FormatError(f"{key} contradicts itself: {wrong}", hint=RESTORE)


def _astray(labels: Mapping[str, int], traffic: Traffic) -> str:
    """Which label does not name what a rollout needs; empty where both do."""
    expected = traffic.candidate if traffic.outcome == "promoted" else traffic.baseline
    if labels.get(traffic.stable) != expected:
        return f"label {traffic.stable!r} names {labels.get(traffic.stable)}, expected {expected}"
    if labels.get(traffic.canary) != traffic.candidate:
        return f"label {traffic.canary!r} names {labels.get(traffic.canary)}, expected {traffic.candidate}"
    return ""


_RECORD = TypeAdapter(Record)
_STATE = TypeAdapter(State)
