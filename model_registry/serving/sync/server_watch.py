"""Asks the server how it stands with each model, and tells when it ends and when it answers again.

A server that is gone may have died of what it was loading, and a wrong guess either way has a price: models.config then
holds what it dies of once more, or a good version is given up. So only what cannot come from a running server counts at
once: nobody listens, its host or name is not there, or two connections on end are cut. Whatever else is wrong with an
answer leaves open how the model stands that was asked for, and nothing more. Where the server says nothing at all that
makes sense for `silence` seconds, it counts as gone too.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from model_registry.errors import StorageError
from model_registry.serving.server_status import ServerStatus, is_refused
from model_registry.serving.sync.sync_metrics import SyncMetrics
from model_registry.serving.version_status import VersionStatus

_ANY_MODEL = "slipway"  # to hear whether the server answers at all, where no model is known, or none can be told of
_SLOW = 2  # questions without an answer after which the others of a look are left for the next
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}  # of a container that ended

log = logging.getLogger("slipway")


@dataclass(frozen=True)
class ServerLook:
    """What a server said.

    Attributes:
        reachable: Whether it answered any question.
        gone: Whether it has ended, as far as can be told. Where it is neither, nothing is known.
        versions: Of each model that was asked for; None where that is not known.
        answered: The version that answered under each label that was asked for, by model.
    """

    reachable: bool = False
    gone: bool = False
    versions: Mapping[str, tuple[VersionStatus, ...] | None] = field(default_factory=dict)
    answered: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class ServerWatch:
    """Of one server."""

    def __init__(
        self,
        status: ServerStatus,
        metrics: SyncMetrics,
        *,
        silence: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Asks for nothing yet.

        Args:
            status: Asks the server.
            metrics: Are told of failures.
            silence: Seconds that a server may say nothing that makes sense before it counts as gone.
            clock: Tells seconds that never go back.
        """
        self._status = status
        self._metrics = metrics
        self._silence = silence
        self._clock = clock
        self._silent: bool | None = None
        self._heard = clock()
        self._slow: set[str] = set()  # are asked last, so that they do not hide the others for ever
        self._troubles: dict[str, str] = {}

    def ask(self, models: Collection[str], labels: Mapping[str, Collection[str]]) -> ServerLook:
        """Asks for models and labels.

        Args:
            models: Whose versions to ask for.
            labels: Which labels to ask for, by model.
        """
        versions: dict[str, tuple[VersionStatus, ...] | None] = {}
        answered: dict[str, Mapping[str, int]] = {}
        troubles: dict[str, str] = {}
        asked = {*models, *(model for model in labels if labels[model])}
        slow: set[str] = set()
        for model in sorted(asked, key=lambda name: (name in self._slow, name)):
            if len(slow) == _SLOW:
                versions[model], troubles[model] = None, self._troubles.get(model, "")
                continue
            try:
                found = self._status.versions(model)
                answered[model] = self._labels(model, labels.get(model, ()))
                versions[model] = found
            except StorageError as error:
                if self._is_gone(error):
                    return self._lost(error, gone=True)
                versions[model], troubles[model] = None, str(error)
                slow |= {model} if isinstance(error.__cause__, OSError) else set()
        self._slow = slow
        if all(found is None for found in versions.values()):
            try:
                self._status.versions(_ANY_MODEL)
            except StorageError as error:
                gone = self._is_gone(error) or self._clock() - self._heard >= self._silence
                return self._lost(error, gone=gone)
        self._note(troubles)
        return ServerLook(True, versions=versions, answered=answered)

    def _labels(self, model: str, labels: Collection[str]) -> dict[str, int]:
        found = {label: self._status.label(model, label) for label in sorted(labels)}
        return {label: version for label, version in found.items() if version is not None}

    def _is_gone(self, error: StorageError) -> bool:
        """Whether a question that failed tells that there is no server."""
        if _is_absent(error.__cause__):
            return True
        if not is_refused(error):
            return False
        try:  # one connection that was cut is one connection; nobody is there where the next is refused, or cut too
            self._status.versions(_ANY_MODEL)
        except StorageError as again:
            return is_refused(again) or _is_absent(again.__cause__)
        return False

    def _lost(self, error: StorageError, *, gone: bool) -> ServerLook:
        self._metrics.failed("", "server")
        if not self._silent:
            log.warning("%s", error)
        self._silent = True
        return ServerLook(gone=gone)

    def _note(self, troubles: Mapping[str, str]) -> None:
        """Tells what changed since the server answered last."""
        self._heard = self._clock()
        if self._silent is not False:
            log.info("the server at %s answers", self._status.url)
        self._silent = False
        for model, trouble in troubles.items():
            self._metrics.failed("", "server")
            if trouble and not self._troubles.get(model):
                log.warning("%s: %s", model, trouble)
        self._troubles = dict(troubles)


def _is_absent(cause: BaseException | None) -> bool:
    """Whether nobody was there to be asked: refused, or no such host or name."""
    if isinstance(cause, socket.gaierror):
        return cause.errno in _NO_SUCH_NAME
    return isinstance(cause, OSError) and cause.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH)
