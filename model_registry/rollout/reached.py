"""Whether all gateways and all servers are where a rollout wants them, by what each was seen to be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SHOWN = 8


@dataclass(frozen=True)
class Reached:
    """Whether all of a kind are where they should be.

    Attributes:
        reached: Whether every one is, and there is one at least.
        failed: Whether one tried and failed, so that waiting may be in vain.
        words: Which is where, for a person; one line.
    """

    reached: bool
    failed: bool
    words: str


@dataclass(frozen=True)
class GatewaySeen:
    """One gateway.

    Attributes:
        up: Whether its agent answers Prometheus; None where Prometheus scrapes it no more, or as another job.
        weight: What is in force for the model; None where nothing recent is known.
        revision: Of the state that it comes from; None likewise.
    """

    up: bool | None
    weight: float | None = None
    revision: float | None = None


@dataclass(frozen=True)
class ServerSeen:
    """One server, as the agent beside it tells.

    Attributes:
        up: Whether the agent answers Prometheus; None where Prometheus scrapes it no more, or as another job.
        read: Whether it has read the registry since it was started.
        revision: Of the model's state that it read last; None where it does not follow the model.
        wanted: What it read that the label names; None where it does not follow the label.
        serving: What the server answers with under the label; None for nothing.
        gave_up: What the label names, where it failed to load and is not tried again by itself; else None.
    """

    up: bool | None
    read: bool = False
    revision: float | None = None
    wanted: float | None = None
    serving: float | None = None
    gave_up: float | None = None


def all_gateways(seen: Mapping[str, GatewaySeen], *, weight: int, revision: int) -> Reached:
    """Whether a weight is in force everywhere.

    Args:
        seen: By instance.
        weight: Percent.
        revision: Of state.json that says so; a later one will do.
    """
    if not seen:
        return Reached(False, False, "Prometheus knows no gateway: expected the job slipway-gateway")
    amiss = [f"{name} {why}" for name, one in sorted(seen.items()) if (why := _gateway(one, weight, revision))]
    if amiss:
        return Reached(False, False, _listed(amiss, "; "))
    return Reached(True, False, f"{weight} % is in force at {_listed(sorted(seen), ', ')}")


def all_servers(seen: Mapping[str, ServerSeen], *, label: str, version: int, revision: int) -> Reached:
    """Whether a version is served everywhere under a label.

    Args:
        seen: By instance; those that follow other labels or models may be among them.
        label: The label.
        version: What it names.
        revision: Of state.json that says so; a later one will do.
    """
    amiss, there, failed = [], [], False
    for name, one in sorted(seen.items()):
        if why := _server(one, label, version, revision):
            amiss.append(f"{name} {why}")
            failed |= _gave_up(one, version, revision)
        elif one.wanted is not None:
            there.append(name)
    if amiss:
        return Reached(False, failed, _listed(amiss, "; "))
    if not there:
        return Reached(False, False, f"Prometheus knows no server that follows {label}: expected the job slipway-sync")
    return Reached(True, False, f"version {version} is served as {label} at {_listed(there, ', ')}")


def _gateway(one: GatewaySeen, weight: int, revision: int) -> str:
    """What is amiss; empty where nothing is."""
    if one.up is None:
        return _unseen("told a weight", one.weight is None)
    if not one.up:
        return "is down"
    if one.weight is None or one.revision is None:
        return "does not tell what it has in force"
    if one.weight != weight:
        return f"has {one.weight:g} % in force instead of {weight} %, of revision {one.revision:g}"
    if not one.revision >= revision:  # as it is with NaN
        return f"has {one.weight:g} % in force, but of revision {one.revision:g} instead of {revision}"
    return ""


def _server(one: ServerSeen, label: str, version: int, revision: int) -> str:
    """What is amiss; empty where nothing is, and where it does not follow the label."""
    # Which labels an agent follows that is down cannot be told. It would have to be another for the rollout to go on.
    if one.up is None:
        return _unseen(f"followed {label}", one.wanted is None)
    if not one.up:
        return "is down"
    if not one.read:
        return "has not read the registry yet"
    if one.revision is None:
        return "" if one.wanted is None else "does not tell what it has read"
    if not one.revision >= revision:
        return f"has read revision {one.revision:g}, not yet {revision}"
    if one.wanted is None:
        return ""
    if one.wanted != version:
        return f"read that {label} names version {one.wanted:g} instead of {version}"
    if one.serving == version:
        return ""
    answers = "nothing" if one.serving is None else f"version {one.serving:g}"
    failed = ", which FAILED to load there: its agent's /status tells why" if _gave_up(one, version, revision) else ""
    return f"answers with {answers} as {label} instead of version {version}{failed}"


def _gave_up(one: ServerSeen, version: int, revision: int) -> bool:
    """Whether it says so of the label as it is now: before that, it may speak of an earlier try of the version."""
    current = one.up is True and one.revision is not None and one.revision >= revision
    return current and one.wanted == version == one.gave_up


def _unseen(did: str, vanished: bool) -> str:
    if vanished:
        return f"{did} within the last ten minutes and does not any more"
    return f"{did} of late, but Prometheus has no `up` with the same job and instance"


def _listed(words: Iterable[str], between: str) -> str:
    listed = list(words)
    more = [f"and {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
    return between.join([*listed[:_SHOWN], *more])
