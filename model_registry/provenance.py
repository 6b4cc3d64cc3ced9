"""Which trained models a registry has seen: those of all its versions ever, and those it refused.

What they were made from stands in the manifests, in the tombstones of collected versions and below `rejected/`. Each
document is read once, the newest first, and no further back than the question needs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pydantic import TypeAdapter

from model_registry import paths
from model_registry.catalog import Catalog
from model_registry.documents import read
from model_registry.errors import FormatError, NotFoundError, StorageError
from model_registry.parallel import in_parallel
from model_registry.servable import ServableVersion, Source
from model_registry.storage.base import ObjectStore
from model_registry.tombstone import Tombstone

_BATCH = 16

log = logging.getLogger("slipway.registry")


@dataclass(frozen=True)
class Seen:
    """A trained model that was packaged or refused before.

    Attributes:
        sha256: Its digest.
        revision: What the store said of it then, or None.
        version: The number it became; None if it was refused.
        run: The id of the run that made the version; empty where that is not known any more.
    """

    sha256: str
    revision: str | None
    version: int | None
    run: str = ""


@dataclass(frozen=True)
class _Rejection:
    """What is read of the record of a refused candidate."""

    source: Source
    schema_version: Literal[1]


_REJECTION = TypeAdapter(_Rejection)


class Provenance:
    """The trained models of one name that a registry has seen. Threads may share it."""

    def __init__(self, catalog: Catalog, model: str) -> None:
        """Reads nothing yet.

        Raises:
            InvalidInputError: If no model may bear the name.
        """
        self._catalog = catalog
        self._model = paths.check_model_name(model)
        self._known: list[Seen] = []
        self._rest = self._read()
        self._reading = threading.Lock()

    def find(self, matches: Callable[[Seen], bool]) -> Seen | None:
        """The newest that matches; a version rather than a refused candidate.

        A document that cannot be trusted is passed over with a warning: at worst a model is packaged twice.

        Raises:
            StorageError: If the store fails.
        """
        for seen in self._known:  # it only grows
            if matches(seen):
                return seen
        with self._reading:
            try:
                for seen in self._rest:
                    self._known.append(seen)
                    if matches(seen):
                        return seen
            except StorageError:
                self._rest = self._read()  # else whoever asks next would take the rest for read
                raise
        return next(filter(matches, self._known), None)  # what another thread read meanwhile

    def _read(self) -> Iterator[Seen]:
        store = self._catalog.store
        numbers = sorted(
            (number for info in store.list(paths.versions(self._model)) if (number := paths.version_of(info.key))),
            reverse=True,
        )
        for start in range(0, len(numbers), _BATCH):
            yield from filter(None, in_parallel(self._version, numbers[start : start + _BATCH]))
        keys = [info.key for info in store.list(paths.rejections(self._model)) if info.key.endswith(".json")]
        for start in range(0, len(keys), _BATCH):
            yield from filter(None, in_parallel(partial(self._rejection, store), keys[start : start + _BATCH]))

    def _version(self, number: int) -> Seen | None:
        try:
            outcome = self._catalog.outcome(self._model, number)
        except FormatError as error:
            _tell(error)
            return None
        if isinstance(outcome, ServableVersion):
            return Seen(outcome.source.sha256, outcome.source.revision, number, outcome.run.id)
        if isinstance(outcome, Tombstone) and outcome.source_sha256:
            return Seen(outcome.source_sha256, outcome.source_revision, number)
        return None

    def _rejection(self, store: ObjectStore, key: str) -> Seen | None:
        try:
            found = read(_REJECTION, store.get(key).data, key=key, what="the record of a rejection")
        except NotFoundError:
            return None
        except FormatError as error:
            _tell(error)
            return None
        return Seen(found.source.sha256, found.source.revision, None)


def _tell(error: FormatError) -> None:
    log.warning("%s; the trained model it tells of may be packaged again", error.message)
