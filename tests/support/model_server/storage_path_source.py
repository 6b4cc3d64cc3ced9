"""Which versions of a model are aspired: those that its policy picks from the children of its base path.

Read from its source: a base path that is missing stops the look at every model, and a version asked for that is not
there is a warning.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.model_server.server_log import log

_SOURCE = "sources/storage_path/file_system_storage_path_source.cc"
_VERSION = re.compile(r"\d{1,18}")


@dataclass(frozen=True)
class Monitored:
    """A model whose base path is looked at.

    Attributes:
        name: Its name.
        base_path: Where its versions are.
        specific: The versions asked for; empty for another policy.
        latest: How many of the highest; None for all of them.
    """

    name: str
    base_path: str
    specific: tuple[int, ...] = ()
    latest: int | None = 1

    def aspired(self) -> dict[int, Path]:
        """The versions to be loaded and where each lies.

        Raises:
            OSError: If the base path cannot be read.
        """
        there = {int(child.name): child for child in Path(self.base_path).iterdir() if _VERSION.fullmatch(child.name)}
        if self.specific:
            for missing in {*self.specific} - {*there}:
                log(
                    "W",
                    _SOURCE,
                    f"Version {missing} of servable {self.name}, which was requested to be served as a 'specific' "
                    "version in the servable's version policy, was not found in the file system",
                )
            picked = [version for version in self.specific if version in there]
        else:
            picked = sorted(there, reverse=True)[: self.latest]
        if not picked:
            log(
                "W",
                _SOURCE,
                f"No versions of servable {self.name} found under base path {self.base_path}. Did you forget to name "
                "your leaf directory as a number (eg. '/1/')?",
            )
        return {version: there[version] for version in picked}


@dataclass
class StoragePathSource:
    """Looks at the disk from time to time and says what is aspired.

    Attributes:
        emit: Called with a model's name and its aspired versions.
    """

    emit: Callable[[str, Mapping[int, Path]], None]
    _models: dict[str, Monitored] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def names(self) -> set[str]:
        """Names of the models that are looked at."""
        with self._mutex:
            return set(self._models)

    def update(self, models: Mapping[str, Monitored]) -> None:
        """Takes other models; those left out are torn down at once, the rest is seen by the next poll."""
        with self._mutex:
            for name in self._models.keys() - models.keys():
                self.emit(name, {})
            self._models = dict(models)

    def poll(self) -> None:
        """Looks at every base path once."""
        with self._mutex:
            aspired = {}
            for model in self._models.values():
                try:
                    aspired[model.name] = model.aspired()
                except OSError as error:
                    found = f"Could not find base path {model.base_path} for servable {model.name} with error {error}"
                    log("E", _SOURCE, f"FileSystemStoragePathSource encountered a filesystem access error: {found}")
                    return
            for name, versions in aspired.items():
                self.emit(name, versions)
