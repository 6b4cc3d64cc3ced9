from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from model_registry.errors import InvalidInputError
from model_registry.payload import open_file, payload_files, upload_order
from tests.support.drafts import CONTENT, make_payload


def test_files_come_in_upload_order_with_size_and_digest(tmp_path: Path) -> None:
    files = payload_files(make_payload(tmp_path / "model"))

    assert [file.path for file in files] == list(upload_order(CONTENT))
    assert {file.path: file.sha256 for file in files} == {
        name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()
    }
    assert {file.path: file.bytes for file in files} == {name: len(data) for name, data in CONTENT.items()}


def test_the_warm_up_goes_first_and_the_graph_last() -> None:
    names = ["a", "saved_model.pb", "zz", "assets.extra/tf_serving_warmup_requests", "assets/vocabulary.txt"]

    assert upload_order(names) == [
        "assets.extra/tf_serving_warmup_requests",
        "a",
        "assets/vocabulary.txt",
        "zz",
        "saved_model.pb",
    ]


def test_a_link_to_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_bytes(b"secret")
    model = make_payload(tmp_path / "model")
    (model / "assets").mkdir()
    (model / "assets" / "vocabulary.txt").symlink_to(tmp_path / "credentials")

    with pytest.raises(InvalidInputError, match="symbolic link"):
        payload_files(model)


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    model = make_payload(tmp_path / "model")
    (model / "assets").symlink_to(tmp_path / "home")

    with pytest.raises(InvalidInputError, match="symbolic link"):
        payload_files(model)


def test_a_link_to_the_whole_model_is_refused(tmp_path: Path) -> None:
    make_payload(tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "model")

    with pytest.raises(InvalidInputError, match="symbolic link"):
        payload_files(tmp_path / "link")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    model = make_payload(tmp_path / "model")
    os.mkfifo(model / "pipe")

    with pytest.raises(InvalidInputError, match="FIFO"):
        payload_files(model)
    with pytest.raises(InvalidInputError, match="FIFO"):
        open_file(model, "pipe")


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_payload(tmp_path / "model")
    monkeypatch.chdir(model)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(InvalidInputError, match="socket"):
            payload_files(model)


@pytest.mark.parametrize("name", [b"back\\slash", b"new\nline", b"not-utf8-\xff", b".slipway-own"])
def test_a_name_that_is_no_key_is_refused(tmp_path: Path, name: bytes) -> None:
    model = make_payload(tmp_path / "model")
    (model / os.fsdecode(name)).touch()

    with pytest.raises(InvalidInputError, match="cannot be a key"):
        payload_files(model)


def test_a_directory_without_a_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"saved_model\.pb"):
        payload_files(make_payload(tmp_path / "model", {"variables/variables.index": b""}))


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        payload_files(tmp_path / "none")


def test_a_hard_link_is_a_file(tmp_path: Path) -> None:
    model = make_payload(tmp_path / "model")
    os.link(model / "saved_model.pb", model / "again")

    assert "again" in [file.path for file in payload_files(model)]


def test_opening_follows_no_link_on_the_way_down(tmp_path: Path) -> None:
    make_payload(tmp_path / "other")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "variables").symlink_to(tmp_path / "other" / "variables")

    with pytest.raises(InvalidInputError, match="symbolic link"):
        open_file(tmp_path / "model", "variables/variables.index")


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret"])
def test_opening_does_not_leave_the_directory(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidInputError):
        open_file(tmp_path, path)


def test_refusals_leave_no_descriptor_open(tmp_path: Path) -> None:
    model = make_payload(tmp_path / "model")
    (model / "link").symlink_to("saved_model.pb")
    before = len([*Path("/proc/self/fd").iterdir()])

    for path in ("link", "variables", "none", "saved_model.pb/below"):
        with pytest.raises((InvalidInputError, FileNotFoundError)):
            open_file(model, path)

    assert len([*Path("/proc/self/fd").iterdir()]) == before
