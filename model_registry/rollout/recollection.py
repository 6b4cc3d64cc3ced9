"""What a rollout did before this run took it up, from the history of its model; and how it stands. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from model_registry.evidence import Evidence
from model_registry.rollout.report import End, Look, RolloutReport, verdict_of
from model_registry.rollout_transitions import under_way
from model_registry.servable import Run
from model_registry.state import Record, State
from model_registry.traffic import Traffic

LIMIT = 500  # transitions; more of one rollout are not told


@dataclass(frozen=True)
class Recollection:
    """What happened since a rollout began.

    Attributes:
        looks: Those that led to a decision.
        evidence: What the last decision rests on.
        why: The reason it was withdrawn for; empty where it was not.
        unused: Whether no request was ever to go to canary.
    """

    looks: tuple[Look, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    why: str = ""
    unused: bool = False


def recalled(history: Sequence[Record]) -> Recollection:
    """What history tells of the rollout that is under way.

    Args:
        history: The last transition first.
    """
    looks: list[Look] = []
    why, used, whole = "", False, False
    for record in history:
        change, evidence = record.transition.traffic, record.origin.evidence
        if change is None:
            continue
        if change.before is None:
            whole = True
            break
        used |= record.transition.action == "shift"
        if record.transition.action == "withdraw" and not why:
            why = record.origin.why
        if evidence:
            before = change.before
            looks.insert(0, Look(_time(record.when), before.weight, before.bakes, verdict_of(evidence), evidence))
    return Recollection(tuple(looks), looks[-1].evidence if looks else (), why, unused=whole and not used)


def standing(model: str, state: State, history: Sequence[Record]) -> RolloutReport:
    """How the rollout under way stands, or how the last one ended.

    Args:
        model: Whose.
        state: As it is.
        history: The last transition first.

    Raises:
        NotFoundError: If there was none.
    """
    history = [record for record in history if record.revision <= state.revision]  # it was read a moment later
    last = next((index for index, record in enumerate(history) if record.transition.traffic), len(history))
    traffic, outcome = state.traffic, None
    if traffic is None and last < len(history):
        change = history[last].transition.traffic
        if change and change.before:
            traffic, outcome = change.before, change.before.outcome
    if traffic is None:
        traffic = under_way(state, model)
    found = recalled(history[last:])
    why = found.why or traffic.paused
    return report(model, traffic, state, outcome=outcome, why=why, looks=found.looks, evidence=found.evidence)


def ended(history: Sequence[Record], run: Run, candidate: int) -> Sequence[Record]:
    """The history up to the end of a rollout that a flow run led; empty where it led none of this candidate to its end.

    Args:
        history: The last transition first.
        run: Which run.
        candidate: Of which version.
    """
    finish: int | None = None
    for index, record in enumerate(history):
        change = record.transition.traffic
        if change is None:
            continue
        if change.after is None:
            finish = index
        of_run = {traffic.run.id for traffic in (change.before, change.after) if traffic and traffic.run}
        if finish is not None and run.id in of_run and change.either and change.either.candidate == candidate:
            return history[finish:]
    return ()


def report(  # noqa: PLR0913 - all that a report has
    model: str,
    traffic: Traffic,
    state: State,
    *,
    outcome: End | None,
    why: str = "",
    by: str = "",
    stuck: str = "",
    looks: Sequence[Look] = (),
    evidence: tuple[Evidence, ...] = (),
) -> RolloutReport:
    """How a rollout stands.

    Args:
        model: Whose.
        traffic: The last that is known of it.
        state: As it is by now.
        outcome: How it ended.
        why: In words.
        by: Who ended it, if it was somebody else.
        stuck: What keeps the canary label where it is.
        looks: In the order of time.
        evidence: What the last decision rests on.
    """
    there = state.traffic
    return RolloutReport(
        model=model,
        version=traffic.candidate,
        baseline=traffic.baseline,
        outcome=outcome,
        why=why,
        by=by,
        stuck=stuck,
        weight=there.weight if there else 0,
        phase=there.phase if there else None,
        paused=there.paused if there else "",
        revision=state.revision,
        looks=tuple(looks),
        evidence=evidence,
    )


def _time(when: str) -> float:
    """Unix seconds; 0 for what nobody can read."""
    try:
        return datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
