"""A candidate in a TensorFlow Serving that somebody else runs: given to it for the time of the check, and taken back.

Its gRPC is all that is known of it: no REST port, no log. It is told of the candidate by ReloadConfig, which replaces
its whole config, and of nothing at all afterwards; so it must be a server for this alone, without a
`--model_config_file_poll_wait_seconds` that would undo the call. It must see the candidate under the path that we do.

Checks on this machine take turns by a lock. Somebody elsewhere who uses the server too, whom no lock keeps away, is
noticed: by the replay, which then tells nothing of the candidate, and here, where a config that is not ours stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from model_registry.errors import InvalidInputError, NotFoundError, SlipwayError
from model_registry.serving.version_status import VersionStatus
from tasks.model_process.log_tail import printable

_RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
# ReloadConfigRequest{config{model_config_list{}}}: its stubs would bring TensorFlow into this process, for four bytes.
_NO_MODELS = b"\x0a\x02\x0a\x00"
_ANSWER_WITHIN = 10.0
_UNLOAD_WITHIN = 60.0
_LOOK = 0.2  # seconds
# What a version comes to that no config names any more; one that could not be loaded ends with an error.
_UNLOADED = ("UNLOADING", "END")

log = logging.getLogger("slipway")


class RunningServer:
    """A server at an address.

    Attributes:
        grpc: HOST:PORT of its gRPC.
        base_path: The directory that holds the candidate, for its config.
        version: The candidate's number in there. None that this server ever had: a version that it still serves, from
            a run that was killed, it would not load again from elsewhere.
    """

    def __init__(self, address: str, model: str, candidate: Path, directory: Path) -> None:
        """Prepares nothing yet.

        Args:
            address: HOST:PORT of its gRPC.
            model: The candidate's name.
            candidate: The SavedModel's directory.
            directory: An empty one, where a directory of versions can be made.
        """
        self.grpc = address
        self.base_path = directory / "served"
        self.version = time.time_ns() // 1_000_000
        self._model = model
        self._candidate = candidate

    def __enter__(self) -> RunningServer:
        self.base_path.mkdir()
        (self.base_path / str(self.version)).symlink_to(self._candidate.resolve(), target_is_directory=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the candidate out of the server's config. What fails is told: the candidate is gone in a moment."""
        try:
            status = self._status()
            if status is None or (status.state in _UNLOADED and not status.error):
                self._tell("it does not have it, and its config is left as it is")  # whoever put another there needs it
            else:
                self._unload()
        except SlipwayError as failure:
            self._tell(failure.message)

    def _unload(self) -> None:
        import grpc

        deadline = time.monotonic() + _UNLOAD_WITHIN
        with grpc.insecure_channel(self.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                channel.unary_unary(_RELOAD)(_NO_MODELS, timeout=_UNLOAD_WITHIN)
            except grpc.RpcError as failure:
                self._tell(str(failure.details() if isinstance(failure, grpc.Call) else failure))
                return
        # A model of the same name that is added meanwhile would be taken for failed when this one has ended.
        while (status := self._status()) is not None and status.state != "END":
            if time.monotonic() > deadline:
                self._tell(f"it has been {status.state} for {_UNLOAD_WITHIN:g} s")
                return
            time.sleep(_LOOK)

    def _status(self) -> VersionStatus | None:
        """What the server tells of the candidate."""
        from model_registry.serving.client import Client

        with Client(self.grpc, timeout=_ANSWER_WITHIN, retries=0) as client:
            try:
                statuses = client.status(self._model)
            except NotFoundError:
                return None
        return next((status for status in statuses if status.version == self.version), None)

    def _tell(self, words: str) -> None:
        words = printable(words)[:200]
        log.warning("note     the candidate was not taken from the server at %s: %s", self.grpc, words)


@contextlib.contextmanager
def reserved(address: str, within: float) -> Iterator[None]:
    """Keeps other checks on this machine from using the server.

    Args:
        address: As the spec names it.
        within: Seconds to wait for another check.

    Raises:
        InvalidInputError: If that takes longer, or the lock cannot be had.
    """
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    lock = Path(tempfile.gettempdir()) / f"slipway-server-{name}.lock"
    try:
        descriptor = _opened(lock)
    except OSError as error:
        raise InvalidInputError(f"{lock}, the lock of the server at {address}: {error.strerror}") from None
    try:
        _wait_for(descriptor, address, within)
        yield
    finally:
        os.close(descriptor)


def require_running_server(address: str) -> None:
    """Makes sure that a TensorFlow Serving answers, and changes nothing there.

    Raises:
        InvalidInputError: If none does.
    """
    from model_registry.serving.client import Client

    try:
        with Client(address, timeout=_ANSWER_WITHIN, retries=0) as client:
            client.status("slipway-server-check")
    except NotFoundError:
        return  # it knows no such model, and so knows what a model is
    except SlipwayError as error:
        raise InvalidInputError(
            f"the spec says `server: {address}`, and no TensorFlow Serving answers there: {printable(error.message)}",
            hint="expected the HOST:PORT of its gRPC, 8500 by default; or leave `server` out to package without "
            "this check",
        ) from None


def _opened(lock: Path) -> int:
    """The lock's file. It is never deleted: somebody may be about to lock it."""
    with contextlib.suppress(FileNotFoundError):
        # Linux keeps O_CREAT from files of others in a sticky directory (fs.protected_regular); reading is enough.
        return os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    return os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def _wait_for(descriptor: int, address: str, within: float) -> None:
    deadline = time.monotonic() + within
    told = False
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise InvalidInputError(
                f"another check has been using the server at {address} for {within:g} s",
                hint="wait for it, or give each its own server",
            )
        if not told:
            log.info("wait     another check uses the server at %s", address)
            told = True
        time.sleep(_LOOK)
