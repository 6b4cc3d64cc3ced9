"""How long a stage took, as reports and handed-over results tell it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageTime:
    """How long a stage took, in seconds."""

    stage: str
    seconds: float
