"""A model that was packaged with engines, and what can be asked of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_registry.servable import Accelerator
from tests.support.command import Outcome

ROOT = Path(__file__).parents[2]

BATCH_SIZES = (1, 8, 32)


@dataclass(frozen=True)
class Packaged:
    """What `slipway package --variant tensorrt-fp16` made of a model.

    Attributes:
        name: The model's.
        outcome: What the command did.
        registry: Where the version lies.
        accelerator: What the pre-flight found on this machine.
    """

    name: str
    outcome: Outcome
    registry: Path
    accelerator: Accelerator

    @property
    def saved_model(self) -> Path:
        """The converted variant."""
        return self.registry / "models" / self.name / self.accelerator.variant / "1"

    @property
    def manifest(self) -> dict[str, Any]:
        """The version's."""
        document = json.loads((self.registry / "registry" / self.name / "versions" / "1.json").read_text())
        assert isinstance(document, dict)
        return document

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        """Those of the converted variant, by name."""
        assert self.outcome.code == 0, f"{self.outcome.stdout}\n{self.outcome.stderr}"
        found = self.outcome.document["checks"]
        return {check["check"]: check for check in found if check["variant"] == self.accelerator.variant}
