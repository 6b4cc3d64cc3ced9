"""What a rollout does next, from how far it is and what was seen of the world. Pure.

    starting    the servers of canary have the candidate    -> the first weight
                one of them gave it up                      -> back: the candidate is worse
    shifting    every gateway has the weight in force       -> the bake begins
    baking      judged worse at any look                    -> back
                judged not worse after its full time        -> the next weight, or stable names the candidate
                undecided after twice its time, or no data  -> paused
    promoting   the servers of stable have the candidate    -> no requests to canary any more
    leaving     every gateway has weight 0 in force         -> over

What is waited for in vain pauses the rollout, which stays at its weight; only `leaving` has nothing to be paused for,
and stays what it is until somebody takes it up. What follows from a bake is told in `baking`.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_registry.rollout.observation import Reached
from model_registry.traffic import Outcome, Traffic


@dataclass(frozen=True)
class Wait:
    """Nothing is to be done yet.

    Attributes:
        words: What is waited for; empty where a bake just goes on.
        seconds: How long it makes no sense to look again.
    """

    words: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Bake:
    """The weight is in force: the bake begins."""


@dataclass(frozen=True)
class Shift:
    """The weight of a step is to come into force.

    Attributes:
        step: Its index.
    """

    step: int


@dataclass(frozen=True)
class Accept:
    """Stable is to name the candidate."""


@dataclass(frozen=True)
class Withdraw:
    """Canary is to get no requests any more.

    Attributes:
        outcome: Why.
        why: Likewise, in words.
    """

    outcome: Outcome
    why: str


@dataclass(frozen=True)
class Pause:
    """Somebody has to look.

    Attributes:
        why: At what.
        silent: Whether data were missing: then it may go on by itself once they are back.
    """

    why: str
    silent: bool = False


@dataclass(frozen=True)
class Finish:
    """It is over."""


@dataclass(frozen=True)
class GiveUp:
    """What leads this rollout ends, which stays as it is.

    Attributes:
        why: What it waited for.
    """

    why: str


Move = Wait | Bake | Shift | Accept | Withdraw | Pause | Finish | GiveUp


def after_waiting(traffic: Traffic, seen: Reached, *, waited: float, timeout: float, unused: bool = False) -> Move:
    """What follows in a phase that waits for servers or gateways.

    Args:
        traffic: In any phase but baking.
        seen: What is to be reached in that phase.
        waited: Seconds that this was waited for.
        timeout: Seconds that it may take.
        unused: Whether no request was ever to go to canary: then there is nothing to wait for until none does.
    """
    phase, late = traffic.phase, waited >= timeout
    if phase == "leaving":
        if seen.reached or unused:
            return Finish()
        return GiveUp(f"after {waited:.0f} s {seen.words}") if late else Wait(seen.words)
    if seen.reached:
        if phase == "starting":
            return Shift(0)
        return Bake() if phase == "shifting" else Withdraw("promoted", f"stable serves it: {seen.words}")
    if seen.failed and phase == "starting":
        return Withdraw("worse", seen.words)
    if seen.failed and phase == "promoting":
        return Pause(seen.words)
    return Pause(f"after {waited:.0f} s {seen.words}") if late else Wait(seen.words)
