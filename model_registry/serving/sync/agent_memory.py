"""What an agent remembers of each model while it is not running. Pure.

It is written before models.config is, so that a version the config names was remembered as AVAILABLE before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter

from model_registry.documents import RESTORE, SCHEMA_VERSION, read
from model_registry.errors import FormatError
from model_registry.paths import check_model_name
from model_registry.serving.sync.sync_state import Remembered

_REMOVE = "the agent owns this file; remove it, and the agent learns anew from models.config and the server"


@dataclass(frozen=True)
class AgentMemory:
    """What is remembered, by model."""

    models: dict[Annotated[str, AfterValidator(check_model_name)], Remembered] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def first(self) -> bool:
        """Whether no version of any model was ever AVAILABLE here."""
        return not any(model.labels or model.loaded for model in self.models.values())

    def to_json(self) -> bytes:
        """The document; the same memory always makes the same bytes."""
        return _ADAPTER.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, path: str) -> AgentMemory:
        """Reads such a document.

        Raises:
            FormatError: If it is none, or one of a newer Slipway.
        """
        try:
            return read(_ADAPTER, data, key=path, what="an agent's memory")
        except FormatError as error:
            raise FormatError(error.message, hint=_REMOVE if error.hint == RESTORE else error.hint) from None


_ADAPTER = TypeAdapter(AgentMemory)
