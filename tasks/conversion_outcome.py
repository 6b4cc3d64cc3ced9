"""What became of the converted variant in one run: there, or missing for a reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from model_registry.servable import Check
from tasks.conversion import Converted


@dataclass(frozen=True)
class ConversionOutcome:
    """What became of it.

    Attributes:
        converted: The variant, where it may be published.
        checks: What was measured on the way to it, and counts for the version.
        missing: Why there is none, by the name it was asked for.
    """

    converted: Converted | None = None
    checks: tuple[Check, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
