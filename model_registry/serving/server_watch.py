"""Asks the server how it stands with each model, and tells when it falls silent and when it answers again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from model_registry.errors import StorageError
from model_registry.serving.server_status import ServerStatus
from model_registry.serving.sync_metrics import SyncMetrics
from model_registry.serving.version_status import VersionStatus

_ANY_MODEL = "slipway"  # to hear whether the server answers at all, where no model is known yet

log = logging.getLogger("slipway")


@dataclass(frozen=True)
class ServerLook:
    """What a server said.

    Attributes:
        reachable: Whether it answered every question.
        versions: Of each model that was asked for.
        answered: The version that answered under each label that was asked for, by model.
    """

    reachable: bool = False
    versions: Mapping[str, tuple[VersionStatus, ...]] = field(default_factory=dict)
    answered: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class ServerWatch:
    """Of one server."""

    def __init__(self, status: ServerStatus, metrics: SyncMetrics) -> None:
        self._status = status
        self._metrics = metrics
        self._silent: bool | None = None

    def ask(self, models: Collection[str], labels: Mapping[str, Collection[str]]) -> ServerLook:
        """Asks for models and labels; a server that leaves one question unanswered counts as silent.

        Args:
            models: Whose versions to ask for.
            labels: Which labels to ask for, by model.
        """
        try:
            versions = {model: self._status.versions(model) for model in sorted(models or {_ANY_MODEL})}
            answered = {model: self._labels(model, asked) for model, asked in labels.items()}
        except StorageError as error:
            self._metrics.failed("", "server")
            if not self._silent:
                log.warning("%s", error)
            self._silent = True
            return ServerLook()
        if self._silent is not False:
            log.info("the server at %s answers", self._status.url)
        self._silent = False
        return ServerLook(True, versions, answered)

    def _labels(self, model: str, labels: Collection[str]) -> dict[str, int]:
        found = {label: self._status.label(model, label) for label in sorted(labels)}
        return {label: version for label, version in found.items() if version is not None}
