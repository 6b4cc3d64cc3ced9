"""Reads a SavedModel that came from elsewhere: what it promises and what it would reach, without running any of it.

Its engines need not fit this machine, so that it could not be tried here; where it was made it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model_registry.servable import Check
from tasks.model_process import inspecting
from tasks.model_process.conversion_messages import InspectPlan
from tasks.model_process.exporting import read_signatures
from tasks.model_process.messages import (
    ValidatedCandidate,
)


def stages(receive: Callable[[type[InspectPlan]], InspectPlan]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One stage."""
    plan = receive(InspectPlan)
    yield "inspect", lambda: inspect(plan)


def inspect(plan: InspectPlan) -> ValidatedCandidate:
    """Holds the SignatureDefs, the ops and the assets against what is allowed.

    Raises:
        InvalidInputError: If an asset lies elsewhere, or the graph is ambiguous.
        google.protobuf.message.DecodeError: If it is no SavedModel.
    """
    directory = Path(plan.saved_model)
    saved_model = inspecting.read_saved_model(directory)
    inspecting.check_assets(directory, saved_model)
    found, denied = read_signatures(directory), inspecting.denied_ops(saved_model)
    same = found == plan.signatures
    differing = ", ".join(item.name for item in set(found) ^ set(plan.signatures))
    return ValidatedCandidate(
        (
            Check("signatures", plan.variant, len(found), len(plan.signatures), same, "" if same else differing[:200]),
            Check("ops", plan.variant, len(denied), 0, not denied, inspecting.shown(denied)),
        )
    )
