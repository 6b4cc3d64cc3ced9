"""A payload's files come whole or not at all, and each is held against its digest."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from model_registry.errors import InvalidInputError, SlipwayError, StorageError
from model_registry.fetching import fetch
from model_registry.servable import PayloadFile
from model_registry.storage.memory import MemoryStore

PREFIX = "models/digits/native/1/"
CONTENT = {"saved_model.pb": b"graph", "variables/variables.index": b"", "assets/words.txt": b"a b c"}
FILES = tuple(PayloadFile(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in CONTENT.items())


class WrongError(SlipwayError):
    """What a caller makes of a file that is something else."""


def damaged(file: PayloadFile, found: str) -> WrongError:
    return WrongError(f"{file.path}: {found}")


@pytest.fixture
def store() -> MemoryStore:
    found = MemoryStore()
    for path, data in CONTENT.items():
        found.put_new(PREFIX + path, data)
    return found


def test_files_arrive_as_they_are_told(store: MemoryStore, tmp_path: Path) -> None:
    fetch(store, PREFIX, FILES, tmp_path / "new" / "here", damaged)

    here = tmp_path / "new" / "here"
    assert {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()} == CONTENT


def test_files_are_read_where_they_lie(store: MemoryStore) -> None:
    fetch(store, PREFIX, FILES, None, damaged)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("data", "said"),
    [(b"GRAPH", "5 bytes, sha256"), (b"g", "1 bytes"), (b"graph and more", "14 bytes"), (None, "it is gone")],
)
def test_a_file_that_is_something_else_is_told_in_the_callers_words(
    store: MemoryStore, tmp_path: Path, data: bytes | None, said: str, in_place: bool
) -> None:
    store.delete([f"{PREFIX}saved_model.pb"])
    if data is not None:
        store.put_new(f"{PREFIX}saved_model.pb", data)

    with pytest.raises(WrongError, match=f"saved_model.pb: {said}"):
        fetch(store, PREFIX, FILES, None if in_place else tmp_path, damaged)


def test_what_is_larger_than_told_never_reaches_the_disk(store: MemoryStore, tmp_path: Path) -> None:
    store.delete([f"{PREFIX}saved_model.pb"])
    store.put_new(f"{PREFIX}saved_model.pb", b"x" * 1000)

    with pytest.raises(WrongError):
        fetch(store, PREFIX, FILES, tmp_path, damaged)

    assert not (tmp_path / "saved_model.pb").exists()


def test_a_path_that_leads_elsewhere_is_refused_before_anything_is_brought(store: MemoryStore, tmp_path: Path) -> None:
    files = (*FILES, PayloadFile("../../../../etc/passwd", 1, "0" * 64))

    with pytest.raises(InvalidInputError):
        fetch(store, PREFIX, files, tmp_path / "here", damaged)

    assert not (tmp_path / "here").exists()


def test_nothing_more_is_begun_once_it_is_stopped(store: MemoryStore, tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()

    with pytest.raises(StorageError, match="it was stopped"):
        fetch(store, PREFIX, FILES, tmp_path, damaged, stopped=stopped)

    assert not list(tmp_path.iterdir())
