"""Where somebody answers over HTTP: a base URL that a person typed, checked before anything is asked. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from model_registry.errors import InvalidInputError

_SHOWN = 200


def base_url(url: str, *, what: str, expected: str) -> str:
    """Returns what paths are appended to, without a closing slash.

    Args:
        url: `http://HOST:PORT`, or https, with a path where a proxy puts it below one.
        what: What it should be, for the message, such as `agent's URL`.
        expected: The hint.

    Raises:
        InvalidInputError: If it is none of this kind.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInputError(f"{url[:_SHOWN]!r} is no {what}: {error}", hint=expected) from None
    if parts.scheme not in ("http", "https"):
        wrong = "it begins with neither http:// nor https://"
    elif not parts.hostname or port == 0:
        wrong = "it names no host that can be asked"
    elif "@" in parts.netloc:
        # Not shown: it may be a password.
        raise InvalidInputError(f"this {what} holds a user or a password: expected none", hint=expected)
    elif parts.query or parts.fragment:
        wrong = "it has a query or a fragment"
    elif not url.isascii() or not url.isprintable() or " " in url:
        wrong = "it has characters that a URL cannot have"
    else:
        return url.rstrip("/")
    raise InvalidInputError(f"{url[:_SHOWN]!r} is no {what}: {wrong}", hint=expected)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_far(url: str) -> bool:
    """Whether a checked URL leads to another machine, so that a proxy may stand between."""
    return not is_loopback(urlsplit(url).hostname or "")
