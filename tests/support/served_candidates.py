"""Candidates that stand before the check in a server, as the stages before would have left them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.model_process.messages import Tolerance
from tasks.server_check import Subject
from tests.support.candidates import prepare


def subject(source: Path, directory: Path, spec: Mapping[str, Any] | None = None) -> Subject:
    """Loads, exports, warms up and answers; nothing is validated.

    Args:
        source: A .keras file.
        directory: An empty directory.
        spec: What the package.yaml says beyond the name.
    """
    made = prepare(source, directory, {"model": "tiny", **(spec or {})})
    return Subject(
        model="tiny",
        directory=made.directory,
        cases=Path(made.plan.cases),
        answers=made.answered.cases,
        records=made.warmed.records,
        signatures=made.exported.signatures,
        tolerance=Tolerance(1e-5, 1e-4),
        variant="native",
    )
