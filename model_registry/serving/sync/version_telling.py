"""What an agent's report says of each version of a model. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from model_registry.serving.model_config import ServedModel
from model_registry.serving.sync.stays import NOT_TAKEN_UP, in_server, is_available
from model_registry.serving.sync.sync_report import VersionReport
from model_registry.serving.sync.sync_state import Seen, Settings, Stay
from model_registry.serving.version_status import VersionStatus

_SILENT = "the server does not answer"


@dataclass(frozen=True)
class Telling:
    """What is told from.

    Attributes:
        seen: The look.
        config: What was decided.
        wanted: The versions that a label is to name.
        failed: Why versions could not be loaded.
        stays: Of the versions in the config.
        waits: What versions wait for that are ready to be added.
        settings: How patient the agent is.
    """

    seen: Seen
    config: ServedModel | None
    wanted: Collection[int]
    failed: Mapping[int, str]
    stays: Mapping[int, Stay]
    waits: Mapping[int, str]
    settings: Settings

    def versions(self) -> tuple[VersionReport, ...]:
        """Of every version that is wanted, loaded, or on its way, ascending."""
        server = {status.version: status for status in self.seen.server or ()}
        listed = self.config.versions if self.config else ()
        present = {version for version, status in server.items() if in_server(status)}
        return tuple(
            self._version(version, server.get(version)) for version in sorted({*self.wanted, *listed, *present})
        )

    def _version(self, version: int, status: VersionStatus | None) -> VersionReport:
        listed = self.config is not None and version in self.config.versions
        named = self.config is not None and version in self.config.labels.values()
        if version in self.wanted and version in self.failed:
            return VersionReport(version, "FAILED", why=self.failed[version], gave_up=True)
        if listed and not (named or version in self.wanted):
            return VersionReport(version, "LEAVING")
        if listed and self.seen.server is None:
            stay = self.stays.get(version)
            was_available = not self.seen.gone and stay is not None and stay.lacking is None
            return VersionReport(version, "AVAILABLE" if was_available else "LOADING", why=_SILENT)
        if listed:
            why = self._not_taken_up(version, status)
            return VersionReport(version, "AVAILABLE" if is_available(status) else "LOADING", why=why)
        if version not in self.wanted:
            return VersionReport(version, "LEAVING")
        if version not in self.seen.here:
            return VersionReport(version, "WAITING")
        return VersionReport(version, "READY", why=self.waits.get(version, ""))

    def _not_taken_up(self, version: int, status: VersionStatus | None) -> str:
        stay = self.stays.get(version)
        late = stay is not None and self.seen.now - stay.since >= self.settings.settle
        return NOT_TAKEN_UP if late and not in_server(status) else ""
