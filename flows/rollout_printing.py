"""What a rollout comes to, for who called `slipway rollout` or the flow: tables, errors, events and the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flows.changes import change_document, change_sentence
from flows.label_events import tell_prefect
from flows.rollout_sentences import in_time
from flows.tables import add_row, new_table, print_facts, print_rich, printable
from model_registry.errors import ConflictError, RejectedError, SlipwayError
from model_registry.rollout.report import compared, stuck_hint
from model_registry.servable import Blessing, Check, Measure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_registry.evidence import Evidence
    from model_registry.registry import Registry
    from model_registry.rollout.report import RolloutReport
    from model_registry.state import Record, State

logger = logging.getLogger("slipway")


def telling(
    registry: Registry, model: str, tell: Callable[[Mapping[str, Any]], None] = tell_prefect
) -> Callable[[Record], None]:
    """Logs each transition, and tells Prefect of the labels that move.

    Args:
        registry: Where they do.
        model: Whose they are.
        tell: Emits the event; a flow run has another way than the command line.
    """

    def told(record: Record) -> None:
        change = change_document(registry.store.uri, model, record)
        logger.info("%s", printable(change_sentence(change)))
        tell(change)

    return told


def failure(report: RolloutReport) -> SlipwayError | None:
    """The error for a rollout that did not end with its candidate promoted; None if it did.

    A RejectedError has the evidence as its checks.
    """
    name, model = f"{report.model}:{report.version}", report.model
    stays = f"with {report.weight} % of the requests to {name}"
    on = f"slipway rollout {model} --resume"
    if report.outcome == "promoted":
        return None
    if report.outcome == "worse":
        hint = f"{model}:{report.baseline} has all requests again; `slipway history {model}` keeps the numbers"
        return RejectedError(
            f"{name} was withdrawn: {report.why.removeprefix('worse: ') or 'it was found worse'}"
            f"{f'; {report.stuck}' if report.stuck else ''}",
            blessing=Blessing(_checks(report)),
            hint=stuck_hint(model) if report.stuck else hint,
        )
    if report.outcome == "aborted":
        by = f" by {report.by}" if report.by else ""
        return ConflictError(
            f"the rollout of {name} was aborted{by}{f': {report.why}' if report.why else ''}",
            hint=f"see `slipway history {model}`",
        )
    if report.by:
        return ConflictError(f"the rollout of {name} was paused, {stays}: {report.why}", hint=f"to go on: {on}")
    return SlipwayError(
        f"the rollout of {name} is paused, {stays}: {report.why}", hint=f"to go on: {on}; --abort ends it"
    )


def print_rollout(report: RolloutReport, state: State) -> None:
    """How a rollout stands."""
    name = f"{report.model}:{report.version}"
    facts = {"rollout": f"{report.model}:{report.baseline} -> {name}"}
    if state.traffic:
        traffic, plan = state.traffic, state.traffic.plan
        last = state.last_transition
        facts |= {
            "phase": f"{traffic.phase}, with {traffic.weight} % of the requests to {traffic.canary}",
            "steps": f"{', '.join(map(str, plan.steps))} % for {in_time(plan.bake)} each, at number {traffic.step + 1}",
            "led by": "nobody" if traffic.paused else _leader(state),
            "paused": traffic.paused,
            "outcome": traffic.outcome or "",
            "epoch": str(traffic.epoch),
            "changed": f"{last.when} by {last.origin.who}" if last else "",
        }
    else:
        facts |= {"outcome": f"{report.outcome}, over at revision {report.revision}", "why": report.why}
    print_facts({name: value for name, value in facts.items() if value})
    print_evidence(report.evidence)


def print_evidence(evidence: tuple[Evidence, ...]) -> None:
    """A row for each metric and check."""
    if not evidence:
        return
    table = new_table("METRIC", "VERDICT", "MEASURED")
    for each in evidence:
        add_row(table, printable(each.metric), each.verdict, printable(compared(each)))
    print_rich(table)


def _leader(state: State) -> str:
    traffic = state.traffic
    if traffic and traffic.run:
        return f"{traffic.run.name}  {traffic.run.url or ''}".rstrip()
    return state.last_transition.origin.who if state.last_transition else ""


def _checks(report: RolloutReport) -> tuple[Check, ...]:
    if not report.evidence:  # it did not come to a measurement
        return (Check("load", "canary", report.why, "served by every server", passed=False),)
    return tuple(
        Check(each.metric, "canary", _sides(each), {"margin": each.margin}, each.verdict != "worse", compared(each))
        for each in report.evidence
        if each.verdict != "undecided"  # it was not needed any more, and is neither passed nor failed
    )


def _sides(evidence: Evidence) -> Measure:
    sides = {"canary": evidence.canary, "stable": evidence.stable}
    return {name: value for name, value in sides.items() if value is not None}
