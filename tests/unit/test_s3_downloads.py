"""Downloads in ranges, from a server of these tests' own."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from model_registry.errors import StorageError
from model_registry.servable import PayloadFile
from model_registry.storage.s3_downloads import Download, ranges

MIB = 1 << 20
ETAG = '"etag"'
OBJECT = random.Random(0).randbytes(17 * MIB + 5)


class Server:
    """Answers as S3 does, but lets the tests change an answer, and asks again once when a body breaks off."""

    def __init__(self, content: bytes, change: Callable[[dict[str, Any]], Any] = lambda answer: None) -> None:
        self._content = content
        self._change = change
        self.asked: list[str] = []

    def stream(self, read: Callable[[Any, Mapping[str, Any]], Any], /, **request: str) -> Any:
        """The store's part."""
        for attempt in (1, 2):
            self.asked.append(request.get("Range", "all"))
            answer = self._answer(request.get("Range"))
            self._change(answer)
            try:
                return read(answer["Body"], answer)
            except EOFError:
                if attempt == 2:
                    raise
        raise AssertionError

    def _answer(self, span: str | None) -> dict[str, Any]:
        if span is None:
            return {"Body": io.BytesIO(self._content), "ContentLength": len(self._content), "ETag": ETAG}
        start, last = map(int, span.removeprefix("bytes=").split("-"))
        if not self._content:  # the store asks once more then
            return self._answer(None)
        last = min(last, len(self._content) - 1)
        part = self._content[start : last + 1]
        told = f"bytes {start}-{last}/{len(self._content)}"
        return {"Body": io.BytesIO(part), "ContentLength": len(part), "ETag": ETAG, "ContentRange": told}


class BreaksOff(io.BytesIO):
    """A body whose second piece never comes."""

    def read(self, amount: int | None = -1) -> bytes:
        """The first piece only."""
        if self.tell():
            raise EOFError
        return super().read(amount)


def _download(server: Server, destination: Path) -> tuple[PayloadFile, int]:
    steps: list[int] = []
    found = Download(server.stream, lambda _: nullcontext(steps.append)).to(destination)
    return found, sum(steps)


@pytest.mark.parametrize("size", [8 * MIB + 1, 100 * MIB, 384 * MIB, 384 * MIB + 1, 5 << 30])
def test_the_ranges_cover_what_follows_the_first_bytes_once(size: int) -> None:
    found = ranges(8 * MIB, size)

    assert [part.start for part in found] == [8 * MIB, *(part.stop for part in found[:-1])]
    assert found[-1].stop == size
    assert max(map(len, found)) <= 16 * MIB


@pytest.mark.parametrize(("size", "count"), [(9 * MIB, 1), (17 * MIB, 2), (56 * MIB, 6), (1032 * MIB, 64)])
def test_an_object_is_asked_for_in_as_few_ranges_as_keep_the_connections_busy(size: int, count: int) -> None:
    assert len(ranges(8 * MIB, size)) == count


@pytest.mark.parametrize("content", [b"", b"small", OBJECT], ids=["empty", "small", "large"])
def test_what_arrives_is_told_as_it_lies_in_the_file(content: bytes, tmp_path: Path) -> None:
    found, advanced = _download(Server(content), tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == content
    assert found == PayloadFile("file", len(content), hashlib.sha256(content).hexdigest())
    assert advanced == len(content)


def test_a_small_object_takes_one_request(tmp_path: Path) -> None:
    server = Server(b"small")
    _download(server, tmp_path / "file")

    assert server.asked == ["bytes=0-8388607"]


def test_a_range_that_broke_off_is_written_and_counted_anew(tmp_path: Path) -> None:
    broken: list[str] = []

    def break_once(answer: dict[str, Any]) -> None:
        if not broken:
            broken.append(answer["ContentRange"])
            answer["Body"] = BreaksOff(answer["Body"].getvalue())

    server = Server(OBJECT, break_once)
    found, advanced = _download(server, tmp_path / "file")

    assert len(server.asked) == 4  # three ranges, one of them twice
    assert found.sha256 == hashlib.sha256(OBJECT).hexdigest()
    assert advanced == len(OBJECT)


@pytest.mark.parametrize(
    "change",
    [
        {"ETag": '"another"'},
        {"ContentLength": len(OBJECT)},
        {"ContentRange": f"bytes {8 * MIB}-{len(OBJECT) - 1}/{len(OBJECT) + 1}"},
        {"ContentRange": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_range_of_another_object_is_refused_and_leaves_no_file(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"of an earlier try")

    def change_others(answer: dict[str, Any]) -> None:
        if not answer["ContentRange"].startswith("bytes 0-"):
            answer.update(change)

    with pytest.raises(StorageError, match="expected ETag, length and range"):
        _download(
            Server(OBJECT, lambda answer: not answer["ContentRange"].startswith("bytes 0-") and answer.update(change)),
            tmp_path / "file",
        )

    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_file_s_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"kept")
    (tmp_path / "file").symlink_to(tmp_path / "secret")

    _download(Server(b"small"), tmp_path / "file")

    assert (tmp_path / "secret").read_bytes() == b"kept"
    assert (tmp_path / "file").read_bytes() == b"small"


@pytest.mark.parametrize("told", ["bytes 0-4/*", "bytes 1-5/6", "bytes 0-5/6", "0-4/5", "bytes 0-4/5, bytes 0-4/5"])
def test_a_first_range_that_is_none_is_refused(told: str, tmp_path: Path) -> None:
    server = Server(b"small", lambda answer: answer.update(ContentRange=told))

    with pytest.raises(StorageError, match="expected its first 5 bytes"):
        _download(server, tmp_path / "file")

    assert list(tmp_path.iterdir()) == []
