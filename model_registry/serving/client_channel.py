"""The connection to a server: one channel, kept open, shared by all threads.

Its settings, and why (https://github.com/grpc/grpc/blob/master/doc/keepalive.md):

- TensorFlow Serving keeps gRPC's server defaults: a ping more often than every five minutes, or while no call is under
  way, earns a GOAWAY `too_many_pings`. So pings go out during calls only, and further apart than that. What finds a
  dead connection is the keepalive's timeout: gRPC gives it to the kernel as TCP_USER_TIMEOUT, and bytes that nobody
  acknowledges for so long end the connection. It is shorter than a call's usual deadline, so that a call whose
  connection was silently dropped is asked again, over another one, in time.
- A server that restarts is back in seconds. gRPC would try it again after up to two minutes; here after two seconds.
- Messages up to 64 MiB each way: gRPC's own 4 MiB is three photographs. No limit at all would let a server fill
  this process' memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from model_registry.errors import InvalidInputError, NotFoundError

DEFAULT_MAX_MESSAGE_BYTES = 64 << 20

_KEEPALIVE_MS = 330_000
_DEAD_AFTER_MS = 5_000
_RECONNECT_MS = (100, 2_000)
# https://github.com/grpc/grpc/blob/master/doc/naming.md. Whatever begins otherwise gRPC takes for a host.
_NAME = re.compile(r"(?:dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):.*\S")
_HOST_PORT = re.compile(r"(?:[^\s:/\[\]]+|\[[0-9A-Fa-f:.%\w]+\]):([0-9]{1,5})")
_LAST_PORT = 65_535  # gRPC would dial the remainder of a larger one


@dataclass(frozen=True)
class Tls:
    """What TLS needs to know; all of it PEM.

    Attributes:
        root_certificates: Who may have signed the server's certificate; None for those that gRPC brings along.
        certificate_chain: The client's own, where the server asks for one.
        private_key: Its key.
        server_name: The name in the server's certificate, where it is another than the one that is dialled.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            raise InvalidInputError("a client's certificate and its private key go together: one of them is missing")

    @classmethod
    def from_files(
        cls,
        root_certificates: Path | None = None,
        *,
        certificate_chain: Path | None = None,
        private_key: Path | None = None,
        server_name: str | None = None,
    ) -> Tls:
        """Reads PEM files.

        Raises:
            NotFoundError: If one is not there.
            InvalidInputError: If one cannot be read, or is no PEM file.
        """
        return cls(_read(root_certificates), _read(certificate_chain), _read(private_key), server_name)


def open_channel(target: str, tls: Tls | None, max_message_bytes: int) -> grpc.Channel:
    """A channel that connects at the first call.

    Raises:
        InvalidInputError: If the target is no HOST:PORT and no gRPC name such as `unix:` or `dns:///`.
    """
    if not _NAME.fullmatch(target) and not _is_host_port(target):
        raise InvalidInputError(
            f"{target!r} names no gRPC server: expected HOST:PORT, with a port from 1 to {_LAST_PORT}",
            hint="TensorFlow Serving's gRPC port is --port, 8500 unless told otherwise; 8501 is REST",
        )
    if max_message_bytes <= 0:
        raise InvalidInputError(f"max_message_bytes is {max_message_bytes}, expected the bytes of the largest message")
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _DEAD_AFTER_MS),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MS[0]),
        ("grpc.min_reconnect_backoff_ms", _RECONNECT_MS[1]),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS[1]),
        # http_proxy is for what leaves the house; no proxy takes gRPC to a server inside.
        ("grpc.enable_http_proxy", 0),
        # Each client has its own connection, and closing it closes that.
        ("grpc.use_local_subchannel_pool", 1),
        # The loop that retries knows the deadline and what may be asked twice.
        ("grpc.enable_retries", 0),
    ]
    if tls is None:
        return grpc.insecure_channel(target, options)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
    return grpc.secure_channel(target, credentials, options)


def _is_host_port(target: str) -> bool:
    found = _HOST_PORT.fullmatch(target)
    return found is not None and 1 <= int(found[1]) <= _LAST_PORT


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", hint="expected a PEM file") from None
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from None
    if b"-----BEGIN " not in data:
        raise InvalidInputError(f"{path} is no PEM file: expected a line that begins with -----BEGIN")
    return data
