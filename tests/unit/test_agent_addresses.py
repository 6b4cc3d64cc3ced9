"""Where an agent listens, and where it is asked."""

from __future__ import annotations

import pytest

from model_registry.errors import InvalidInputError
from model_registry.serving.agent_server import parse_listen
from model_registry.serving.http_url import is_loopback
from model_registry.serving.sync.agent_client import AgentClient


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8502", ("127.0.0.1", 8502)),
        ("[::1]:8502", ("::1", 8502)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("serving-7.example:65535", ("serving-7.example", 65535)),
    ],
)
def test_an_address_to_listen_on_is_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8502", ":8502", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:8502", "a:-1", "a b:1", "a:1\n"]
)
def test_what_is_no_address_to_listen_on_says_what_is(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected HOST:PORT, such as") as refused:
        parse_listen(text)
    assert "0.0.0.0:8502" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8502", "http://127.0.0.1:8502"),
        ("http://[::1]:8502/", "http://[::1]:8502"),
        ("https://gateway.example/agents/7/", "https://gateway.example/agents/7"),
    ],
)
def test_the_url_of_an_agent_is_taken(url: str, expected: str) -> None:
    assert AgentClient(url).url == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8502", "it begins with neither http:// nor https://"),
        ("ftp://a:1", "it begins with neither http:// nor https://"),
        ("file:///etc/passwd", "it begins with neither http:// nor https://"),
        ("http://", "it names no host"),
        ("http://:8502", "it names no host"),
        ("http://a:0", "it names no host"),
        ("http://a:99999", "Port out of range"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://a/?x=1", "it has a query"),
        ("http://a/#x", "it has a query or a fragment"),
        ("http://a/b c", "characters that a URL cannot have"),
        ("http://a/\r\nX: y", "characters that a URL cannot have"),
        ("http://b\u00fccher", "characters that a URL cannot have"),
    ],
)
def test_what_is_no_url_of_an_agent_says_why(url: str, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected) as refused:
        AgentClient(url)
    assert "slipway sync --listen" in str(refused.value.hint)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidInputError) as refused:
        AgentClient("http://ann:hunter2@a:8502")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
    ],
)
def test_a_loopback_host_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
