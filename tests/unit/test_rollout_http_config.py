"""How to log in at Prometheus: files as its own tools take them, and nothing of them in an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_registry.errors import InvalidInputError
from model_registry.rollout.http_config import HttpConfig, load_http_config


def load(folder: Path, text: str) -> HttpConfig:
    (folder / "http.yaml").write_text(text)
    return load_http_config(folder / "http.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("authorization: {credentials: hunter2}", {"Authorization": "Bearer hunter2"}),
        ("authorization: {type: Token, credentials: hunter2}", {"Authorization": "Token hunter2"}),
        ("authorization: {credentials_file: secret}", {"Authorization": "Bearer in-a-file"}),
        ("basic_auth: {username: ann, password: hunter2}", {"Authorization": "Basic YW5uOmh1bnRlcjI="}),
        ("basic_auth: {username: ann, password_file: secret}", {"Authorization": "Basic YW5uOmluLWEtZmlsZQ=="}),
    ],
)
def test_it_says_what_is_sent(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    (tmp_path / "secret").write_text("in-a-file\n")
    config = load(tmp_path, text)
    assert config.login().headers == expected
    assert "hunter2" not in repr(config)


def test_nothing_is_sent_without_one() -> None:
    assert HttpConfig().login().headers == {}


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "basic_auth: ann:hunter2",
        "basic_auth: {username: ann, password: [hunter2]}",
        "basic_auth: {username: ann, password: hunter2, password_file: x}",
        "basic_auth: {username: ann}",
        'basic_auth: {username: ann, password: ""}',
        "authorization: {credentials: hunter2, credentials_file: x}",
        "authorization: {credentials: @hunter2}",
        'authorization: {credentials: "hunter2\\r\\nX-Forwarded-For: y"}',
        "authorization: {credentials: hunterü2}",
        'authorization: {type: "a b", credentials: hunter2}',
        "authorization: {credentials: hunter2}\nbasic_auth: {username: ann, password: hunter2}",
        "bearer_token: hunter2",
        "tls_config: {insecure_skip_verify: true}",
        "authorization: {credentials_file: nowhere}",
        "authorization: {credentials_file: binary}",
        "authorization: {credentials_file: empty}",
    ],
)
def test_what_cannot_be_meant_is_refused_without_showing_a_secret(tmp_path: Path, text: str) -> None:
    (tmp_path / "binary").write_bytes(b"hunter2\xff")
    (tmp_path / "empty").write_bytes(b"\n")
    with pytest.raises(InvalidInputError) as refused:
        load(tmp_path, text)
    assert "hunter" not in str(refused.value)


def test_a_number_as_a_password_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"basic_auth\.password: Input should be a valid string") as refused:
        load(tmp_path, "basic_auth: {username: ann, password: 424242}")
    assert "424242" not in str(refused.value)
