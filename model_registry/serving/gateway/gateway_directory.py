"""The directory that a gateway's agent fills and Envoy reads.

clusters.json, routes.json     the channel to Envoy, each replaced whole
.slipway/lock                  held by the one agent that fills the directory
.slipway/gateway.json          what the agent remembers
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from model_registry.serving.gateway.envoy_resources import ROUTES_FILE, revisions_written
from model_registry.serving.gateway.turnover import Turnover
from model_registry.serving.owned_directory import OwnedDirectory, is_temporary

_OWN = ".slipway"
MEMORY = f"{_OWN}/gateway.json"
_LOCK = f"{_OWN}/lock"

log = logging.getLogger("slipway")


class GatewayDirectory:
    """The directory. Methods raise StorageError where the disk fails, or a symbolic link lies in the way."""

    def __init__(self, root: Path) -> None:
        """Makes the directory where it is missing, locks it, and removes what another agent left half-done.

        Args:
            root: Its path.

        Raises:
            ConflictError: If another agent has it.
        """
        self._place = OwnedDirectory(root)
        self.root = self._place.root
        self._place.make(_OWN)
        self._lock: int | None = self._place.lock(_LOCK)
        self._written: dict[str, bytes] = {}
        for folder in ("", _OWN):
            self._place.clear(folder, is_temporary)

    def close(self) -> None:
        """Lets another agent have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def routed(self) -> Mapping[str, int] | None:
        """The revision of the state that each model's routes follow, by model; None where no routes are there.

        Raises:
            FormatError: If somebody else wrote them.
        """
        data = self._place.read(ROUTES_FILE)
        return None if data is None else revisions_written(data, path=str(self.root / ROUTES_FILE))

    def memory(self) -> Turnover | None:
        """What was remembered, or None.

        Raises:
            FormatError: If somebody else wrote it.
        """
        data = self._place.read(MEMORY)
        return None if data is None else Turnover.from_json(data, path=str(self.root / MEMORY))

    def remember(self, turnover: Turnover) -> None:
        """Replaces what is remembered."""
        self._place.replace(MEMORY, turnover.to_json())

    def write(self, files: Mapping[str, bytes]) -> None:
        """Replaces those files that say something else."""
        for name, data in files.items():
            found = self._place.read(name)
            if found not in (None, self._written.get(name, found)):
                log.warning("%s was changed by somebody else, and is put back", self.root / name)
            if found != data:
                self._place.replace(name, data)
            self._written[name] = data
