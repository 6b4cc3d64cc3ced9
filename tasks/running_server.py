"""A candidate in a TensorFlow Serving that somebody else runs: given to it for the time of the check, and taken back.

Its gRPC is all that is known of it: no REST port, no log. It is told of the candidate by ReloadConfig, which replaces
its whole config, and of nothing at all afterwards; so it must be a server for this alone, without a
`--model_config_file_poll_wait_seconds` that would undo the call. It must see the candidate under the path that we do.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import TracebackType

from model_registry.errors import InvalidInputError, NotFoundError, SlipwayError
from tasks.model_process.log_tail import printable

_RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
# ReloadConfigRequest{config{model_config_list{}}}: its stubs would bring TensorFlow into this process, for four bytes.
_NO_MODELS = b"\x0a\x02\x0a\x00"
_ANSWER_WITHIN = 10.0
_UNLOAD_WITHIN = 60.0

log = logging.getLogger("slipway")


class RunningServer:
    """A server at an address.

    Attributes:
        grpc: HOST:PORT of its gRPC.
        base_path: The directory that holds the candidate, for its config.
        version: The candidate's number in there. None that this server ever had: a version that it still serves, from
            a run that was killed, it would not load again from elsewhere.
    """

    def __init__(self, address: str, candidate: Path, directory: Path) -> None:
        """Prepares nothing yet.

        Args:
            address: HOST:PORT of its gRPC.
            candidate: The SavedModel's directory.
            directory: An empty one, where a directory of versions can be made.
        """
        self.grpc = address
        self.base_path = directory / "served"
        self.version = time.time_ns() // 1_000_000
        self._candidate = candidate

    def __enter__(self) -> RunningServer:
        self.base_path.mkdir()
        (self.base_path / str(self.version)).symlink_to(self._candidate.resolve(), target_is_directory=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the candidate out of the server's config. What fails is told: the candidate is gone in a moment."""
        import grpc

        with grpc.insecure_channel(self.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                channel.unary_unary(_RELOAD)(_NO_MODELS, timeout=_UNLOAD_WITHIN)
            except grpc.RpcError as failure:
                words = failure.details() if isinstance(failure, grpc.Call) else str(failure)
                words = printable(str(words))[:200]
                log.warning("note     the candidate could not be taken from the server at %s: %s", self.grpc, words)


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
