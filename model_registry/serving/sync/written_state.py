"""What an agent has written: what it remembers, and models.config. The first is always written before the second."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from model_registry.errors import FormatError
from model_registry.serving import model_config
from model_registry.serving.model_config import ServedModel
from model_registry.serving.sync import reconciling
from model_registry.serving.sync.agent_memory import AgentMemory
from model_registry.serving.sync.followed_model import FollowedModel
from model_registry.serving.sync.serving_directory import CONFIG, MEMORY, ServingDirectory
from model_registry.serving.sync.sync_settings import SyncSettings

log = logging.getLogger("slipway")


class WrittenState:
    """Of one directory.

    Attributes:
        memory: What is remembered.
    """

    def __init__(self, directory: ServingDirectory) -> None:
        """Reads both.

        Args:
            directory: Where they lie.

        Raises:
            FormatError: If one was written by somebody else.
        """
        self._directory = directory
        data = directory.memory()
        self.memory = AgentMemory.from_json(data, path=str(directory.root / MEMORY)) if data else AgentMemory()
        self._text = directory.config()
        text = self._text
        self._config = None if text is None else model_config.from_text(text, path=str(directory.root / CONFIG))

    def models(self, settings: SyncSettings) -> dict[str, FollowedModel]:
        """The models as these have them; where there is no models.config, as the server was last seen to have them."""
        models = {name: FollowedModel(name, remembered=before) for name, before in self.memory.models.items()}
        for served in self._config or ():
            models.setdefault(served.name, FollowedModel(served.name)).config = served
        if self._config is None:
            here = self._directory.here()
            for name, model in models.items():
                whole, path = frozenset(here.get(name, ())), settings.model_path(name)
                model.config = reconciling.prepare(
                    model.remembered, None, whole, first=False, name=name, base_path=path
                )
        for model in models.values():
            model.counted_on = frozenset({*(model.config.labels if model.config else ()), *model.remembered.labels})
        return models

    def write(self, memory: AgentMemory, config: Iterable[ServedModel]) -> None:
        """Writes what changed.

        Raises:
            StorageError: If that failed; it is found changed again by the next call.
        """
        if memory != self.memory:
            self._directory.write_memory(memory.to_json())
            self.memory = memory
        text = model_config.to_text(config)
        try:
            found = self._directory.config()
        except FormatError:  # no text at all: certainly not ours
            found = ""
        if found not in (None, self._text):
            log.warning("%s was changed by somebody else, and is put back", self._directory.root / CONFIG)
        if found != text:
            self._directory.write_config(text)
        self._text = text
