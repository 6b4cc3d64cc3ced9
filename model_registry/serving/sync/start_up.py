"""What a server may be started with.

A version that cannot be loaded ends a server that starts with it, and every model with it. So it is started with what
it had AVAILABLE before, as far as that can be had byte for byte: with what the labels ask for of it, or else with what
they named; only where it never had anything, with whatever the labels ask for. What is new comes later, into the
running server.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from model_registry.errors import SlipwayError, StorageError
from model_registry.servable import Variant
from model_registry.serving.model_config import ServedModel
from model_registry.serving.sync import reconciling
from model_registry.serving.sync.agent_memory import AgentMemory
from model_registry.serving.sync.followed_model import same
from model_registry.serving.sync.registry_view import Look, ModelLook, RegistryView
from model_registry.serving.sync.safe_start import remember
from model_registry.serving.sync.serving_directory import ServingDirectory
from model_registry.serving.sync.supply import Supply
from model_registry.serving.sync.sync_report import VersionReport
from model_registry.serving.sync.sync_settings import SyncSettings
from model_registry.serving.sync.sync_state import Remembered

log = logging.getLogger("slipway")


class StartUp:
    """Makes sure of every byte that a server is to start with.

    Attributes:
        problems: Why a version cannot be part of it, by model and version.
        remembered: What is to be remembered, by model, before models.config says what `config` returned.
    """

    def __init__(self, settings: SyncSettings, directory: ServingDirectory, view: RegistryView, supply: Supply) -> None:
        self.problems: dict[tuple[str, int], str] = {}
        self.remembered: dict[str, Remembered] = {}
        self._settings = settings
        self._directory = directory
        self._view = view
        self._supply = supply

    def config(self, memory: AgentMemory, look: Look) -> dict[str, ServedModel]:
        """Brings what is missing of it, and returns what models.config may say.

        Args:
            memory: What was AVAILABLE here before.
            look: What the registry says now.
        """
        config = {}
        self.remembered = dict(memory.models)
        for name in sorted({*memory.models, *look.models}):
            model = look.models.get(name, ModelLook())
            before = memory.models.get(name, Remembered())
            found = reconciling.prepare(
                before,
                model.wanted,
                self._whole(name, before, model.wanted, first=memory.first),
                first=memory.first,
                name=name,
                base_path=self._settings.model_path(name),
            )
            if found:
                config[name] = found
            if found or name in memory.models:
                left = before.still_wanted(model.wanted, model.revision)
                self.remembered[name] = remember(left, found.labels if found else {})
        return config

    def versions(self, model: str, served: ServedModel | None) -> tuple[VersionReport, ...]:
        """What became of the versions of a model.

        Args:
            model: Its name.
            served: What models.config says of it.
        """
        ready = [
            VersionReport(version, "READY", lying.name)
            for version in (served.versions if served else ())
            if (lying := self._directory.variant(model, version))
        ]
        failed = [
            VersionReport(version, "FAILED", why=why) for (of, version), why in self.problems.items() if of == model
        ]
        return tuple(sorted([*ready, *failed], key=lambda one: one.version))

    def _whole(
        self, model: str, before: Remembered, wanted: Mapping[str, int] | None, *, first: bool
    ) -> frozenset[int]:
        """The versions that labels may name: as wanted where that can be, as remembered where it cannot."""
        targets = {version for version in (wanted or {}).values() if first or version in before.proven}
        verified = self._verified(model, targets)
        labels = before.labels if wanted is None else before.labels.keys() & wanted.keys()
        left = {before.labels[label] for label in labels if (wanted or {}).get(label) not in verified}
        return verified | self._verified(model, left - targets)

    def _verified(self, model: str, versions: Collection[int]) -> frozenset[int]:
        return frozenset(version for version in sorted(versions) if self._is_whole(model, version))

    def _is_whole(self, model: str, version: int) -> bool:
        today = self._view.choice(model, version)
        lying = self._directory.variant(model, version)
        right = lying is not None and (
            same(lying, today) if isinstance(today, Variant) else lying.name in self._settings.variants
        )
        if right and lying and self._directory.verify(model, version, lying):
            return True
        try:
            if isinstance(today, str):
                raise StorageError(today)
            if lying or self._directory.is_own(model, version):
                log.warning("%s:%s is not whole here, or another variant, and is brought again", model, version)
                self._directory.discard(model, version)
            self._supply.require_space(model, version, today)
            self._supply.bring(model, version, today)
        except SlipwayError as error:
            self.problems[model, version] = str(error)
            log.warning("%s:%s is left out: %s", model, version, error)
            return False
        return True
