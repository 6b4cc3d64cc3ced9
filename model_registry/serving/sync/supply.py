"""Keeps the disk in line with what is needed: brings versions, and removes those that nobody needs any more.

A version that a server may have loaded is never touched: neither replaced, where what lies there is not what it should
be, nor removed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from functools import partial

from model_registry import paths
from model_registry.catalog import Catalog
from model_registry.errors import ConflictError, SlipwayError, StorageError
from model_registry.fetching import fetch
from model_registry.servable import PayloadFile, Variant
from model_registry.serving.sync.downloads import Downloads
from model_registry.serving.sync.serving_directory import ServingDirectory
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.storage.durable import translated

log = logging.getLogger("slipway")


class Supply:
    """Of one serving directory, from one registry."""

    def __init__(
        self,
        directory: ServingDirectory,
        catalog: Catalog,
        metrics: SyncMetrics,
        *,
        reserve: int,
        done: Callable[[], None],
    ) -> None:
        """Begins nothing.

        Args:
            directory: What is filled.
            catalog: What it is filled from.
            metrics: Are told of bytes and failures.
            reserve: Bytes of the disk that stay free.
            done: Called when a download has ended.
        """
        self.downloads = Downloads(done)
        self._directory = directory
        self._catalog = catalog
        self._metrics = metrics
        self._reserve = reserve
        self._old: dict[str, list[int]] = {}
        self._stuck: dict[str, dict[int, str]] = {}

    def collect(self) -> None:
        """Takes note of the downloads that ended."""
        for (model, version), error in self.downloads.collect().items():
            if error is not None:
                failure = self.downloads.failure((model, version))
                self._metrics.failed(model, "download")
                log.warning(
                    "%s:%s could not be downloaded%s: %s",
                    model,
                    version,
                    f" (attempt {failure.times})" if failure and failure.times > 1 else "",
                    error,
                )

    def begin(self, model: str, version: int, variant: Variant, *, in_use: bool) -> None:
        """Begins to bring a version, if there is room for it and its time has come.

        Args:
            model: Whose.
            version: Its number.
            variant: What to bring.
            in_use: Whether the server may have it loaded.
        """
        what = (model, version)
        if not self.downloads.may_begin(what):
            return
        try:
            self._directory.require_own(model)
            if self._directory.occupied(model, version) and self._directory.is_own(model, version):
                if in_use:
                    raise ConflictError(
                        f"what lies at {self._directory.path(model, version)} is damaged, and the server "
                        "may have it loaded: it is replaced once the server has left it"
                    )
                self._directory.discard(model, version)
            self.require_space(model, version, variant)
        except SlipwayError as error:
            self.downloads.fail(what, str(error))
            self._metrics.failed(model, "disk")
            log.warning("%s:%s is not downloaded: %s", model, version, error)
            return
        self.downloads.begin(what, variant, partial(self.bring, model, version, variant))

    def bring(self, model: str, version: int, variant: Variant) -> None:
        """Brings a version here, verified and whole.

        Raises:
            ConflictError: If something else lies there.
            StorageError: If it is not what was published, or the store or the disk fails.
        """
        directory, begun = self._directory, time.monotonic()
        if directory.occupied(model, version):
            if not directory.verify(model, version, variant):
                raise ConflictError(
                    f"{directory.path(model, version)} is there already, and is not {model}:{version}, variant "
                    f"{variant.name}",
                    hint="see what it is, and remove it: the agent brings what the registry has",
                )
            directory.take_over(model, version, variant)
            log.info("%s:%s was here already, variant %s: every byte of it is right", model, version, variant.name)
            return
        prefix = paths.payload(model, variant.name, version)
        incoming = directory.incoming(model, version)
        try:
            damaged = partial(_damaged, model, version)
            with translated(incoming):
                fetch(self._catalog.store, prefix, variant.files, incoming, damaged, stopped=self.downloads.stopped)
                directory.commit(incoming, model, version, variant)
        except BaseException:
            directory.abandon(incoming)
            raise
        self._metrics.downloaded(model, variant.bytes)
        seconds = time.monotonic() - begun
        log.info(
            "%s:%s downloaded, variant %s: %s bytes in %.1f s",
            model,
            version,
            variant.name,
            f"{variant.bytes:,}",
            seconds,
        )

    def sweep(self, model: str, unneeded: Collection[int], *, keep: int) -> None:
        """Removes versions that nobody needs.

        Args:
            model: Whose.
            unneeded: Versions that no models.config names, no server has, and no label wants.
            keep: How many of them stay, the highest ones, until the disk needs the room.
        """
        for version in sorted(self._stuck.get(model, {}).keys() - {*unneeded}):
            self._try(model, version, self._directory.remove_leaving)
        oldest_first = sorted(unneeded)
        self._old[model] = oldest_first[max(0, len(oldest_first) - keep) :]
        for version in oldest_first[: max(0, len(oldest_first) - keep)]:
            self._remove(model, version)

    def require_space(self, model: str, version: int, variant: Variant) -> None:
        """Makes sure that a version fits on the disk; old ones that were kept go for it.

        Raises:
            StorageError: If it does not fit.
        """
        needed = variant.bytes + self._reserve
        while (free := self._free()) < needed and self.make_room():
            pass
        if free < needed:
            raise StorageError(
                f"the disk is nearly full: {model}:{version} takes {variant.bytes:,} bytes and {self._reserve:,} are "
                f"to stay free, found {max(0, free):,} at {self._directory.root}",
                hint="free some space there, or give a smaller --reserve",
                transient=True,
            )

    def make_room(self) -> bool:
        """Removes one of the old versions that were kept; tells whether there was one."""
        while model := next((name for name in self._old if self._old[name]), ""):
            if self._remove(model, self._old[model].pop(0)):
                return True
        return False

    def problem(self, model: str) -> str:
        """Why something of a model that nobody needs could not be removed; empty if all could."""
        return "; ".join(f"{why}: it takes room, no more" for why in self._stuck.get(model, {}).values())

    def close(self, timeout: float) -> bool:
        """Begins nothing more; tells whether everything under way has ended by then."""
        return self.downloads.close(timeout)

    def _free(self) -> int:
        """What is free once everything under way is here."""
        arrived = sum(self._directory.arrived(model) for model in {model for model, _ in self.downloads.running})
        return self._directory.free() - max(0, self.downloads.size - arrived)

    def _remove(self, model: str, version: int) -> bool:
        gone = self._try(model, version, self._directory.discard)
        if gone:
            log.info("%s:%s removed from the disk: nobody needs it any more", model, version)
        return gone

    def _try(self, model: str, version: int, remove: Callable[[str, int], None]) -> bool:
        """Removes something, or notes why that failed: it is tried again, and holds up nothing else."""
        stuck = self._stuck.setdefault(model, {})
        try:
            remove(model, version)
        except StorageError as error:
            if version not in stuck:
                log.warning("%s:%s could not be removed from the disk: %s", model, version, error)
                self._metrics.failed(model, "disk")
            stuck[version] = error.message
            return False
        stuck.pop(version, None)
        return True


def _damaged(model: str, version: int, file: PayloadFile, found: str) -> StorageError:
    return StorageError(
        f"{model}:{version}: {file.path} is not what was published: expected {file.bytes:,} bytes, sha256 "
        f"{file.sha256[:12]}, found {found}",
        hint=f"slipway verify {model}:{version} lists all that differs",
    )
