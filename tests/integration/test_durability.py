"""What a local registry flushes to the disk, and in which order: what is left when the power fails.

A killed process loses nothing that it wrote, since the system still has it; only the order of the calls tells
what the disk holds. A file counts as flushed if it was when it had the size and the time it has when it is named.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from model_registry import paths
from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.storage.local import LocalStore
from tests.support.drafts import CONTENT, make_draft, make_payload
from tests.support.garbage import ANN

KEY = "registry/digits/state.json"
PREFIX = "models/digits/native/1/"


@dataclass(frozen=True)
class Content:
    """What a file or a directory held at some moment."""

    inode: tuple[int, int]
    size: int
    modified: int


@dataclass(frozen=True)
class Flushed:
    """A file or a directory was brought to the disk."""

    content: Content


@dataclass(frozen=True)
class Named:
    """A file or a tree is about to get a name, or a directory to be made."""

    path: Path
    contents: dict[str, Content]
    directory: tuple[int, int]


@dataclass
class Record:
    """The calls that decide what a disk holds, in their order."""

    events: list[Flushed | Named] = field(default_factory=list)

    def naming(self, path: Path) -> int:
        """Where something got this name; its first attempts may have failed."""
        return max(at for at, event in enumerate(self.events) if isinstance(event, Named) and event.path == path)

    def settled(self, path: Path) -> int:
        """Where the name was on the disk, with all that it names and all the directories above it."""
        at = self.naming(path)
        named = self.events[at]
        assert isinstance(named, Named)
        flushed = {event.content for event in self.events[:at] if isinstance(event, Flushed)}
        unflushed = {name for name, content in named.contents.items() if content not in flushed}
        assert not unflushed, f"{path} is named before these are on the disk: {unflushed}"
        for parent in path.parents:
            if any(isinstance(event, Named) and event.path == parent for event in self.events):
                made = self._flushed_after(self.naming(parent), parent)
                assert made < at, f"{path} is named before {parent} is on the disk"
        return self._flushed_after(at, path)

    def _flushed_after(self, at: int, path: Path) -> int:
        named = self.events[at]
        assert isinstance(named, Named)
        for later, event in enumerate(self.events[at:], at):
            if isinstance(event, Flushed) and event.content.inode == named.directory:
                return later
        pytest.fail(f"the directory of {path} is not flushed after it got its name")


_recording: list[Record] = []  # an audit hook cannot be taken away


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _recording or event not in ("os.link", "os.rename", "os.mkdir"):
        return
    source, target = (None, args[0]) if event == "os.mkdir" else args[:2]
    path = Path(os.fsdecode(target))
    if source is None and path.is_dir():
        return  # the call will fail
    try:
        contents = _contents(Path(os.fsdecode(source))) if source else {}
        _recording[-1].events.append(Named(path, contents, _content(path.parent.stat()).inode))
    except FileNotFoundError:
        pass  # the call will fail


@pytest.fixture(scope="session", autouse=True)
def _audit() -> None:
    sys.addaudithook(_hear)


@contextmanager
def recorded() -> Iterator[Record]:
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        flush(descriptor)
        _recording[-1].events.append(Flushed(_content(os.fstat(descriptor))))

    _recording.append(Record())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        try:
            yield _recording[-1]
        finally:
            _recording.pop()


def _contents(path: Path) -> dict[str, Content]:
    found = [path, *path.rglob("*")] if path.is_dir() else [path]
    return {str(each.relative_to(path.parent)): _content(each.lstat()) for each in found}


def _content(found: os.stat_result) -> Content:
    return Content((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns)


def put_new(store: LocalStore, source: Path) -> str:
    store.put_new(KEY, b"{}")
    return KEY


def put_if_match(store: LocalStore, source: Path) -> str:
    store.put_if_match(KEY, b'{"revision": 2}', store.put_new(KEY, b"{}"))
    return KEY


def copy(store: LocalStore, source: Path) -> str:
    store.put_new(KEY, b"{}")
    store.copy(KEY, "registry/another/copy.json")
    return "registry/another/copy.json"


def upload_tree(store: LocalStore, source: Path) -> str:
    store.upload_tree(source, PREFIX, payload_files(source))
    return PREFIX.rstrip("/")


@pytest.mark.parametrize("write", [put_new, put_if_match, copy, upload_tree])
def test_what_is_named_is_on_the_disk_before_and_its_name_after(
    tmp_path: Path, write: Callable[[LocalStore, Path], str]
) -> None:
    source = make_payload(tmp_path / "source")

    with recorded() as record:
        key = write(LocalStore(tmp_path / "deep" / "registry"), source)

    path = tmp_path / "deep" / "registry" / key
    named = record.events[record.naming(path)]
    assert isinstance(named, Named)
    if write is upload_tree:  # every file and every directory, and not only some
        assert {name.partition("/")[2] for name in named.contents} >= {*CONTENT, "", "variables", "assets.extra"}
    else:
        assert len(named.contents) == 1
    record.settled(path)


def test_a_payload_that_crosses_file_systems_is_on_the_disk_before_it_is_named(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        source = make_payload(Path(shared) / "source")

        with recorded() as record:
            upload_tree(LocalStore(tmp_path / "registry"), source)

        assert source.is_dir()  # it was not simply renamed
    record.settled(tmp_path / "registry" / PREFIX)


def test_a_version_is_on_the_disk_before_its_manifest_and_a_past_state_before_the_next(tmp_path: Path) -> None:
    root = tmp_path / "registry"
    registry = Registry(LocalStore(root))

    with recorded() as record:
        with registry.store.workspace("run-1") as directory:
            payload = make_payload(directory / "native")
            version, _ = registry.publish(make_draft(), {"native": payload})
        registry.promote("digits", version.version, "canary", origin=ANN)
        registry.promote("digits", version.version, "stable", origin=ANN)

    reservation, claim, manifest, state, history = (
        root / key
        for key in (
            paths.reservation("digits", 1),
            paths.claim("digits", "a1"),
            paths.manifest("digits", 1),
            paths.state("digits"),
            paths.record("digits", 1),
        )
    )
    files = root / paths.payload("digits", "native", 1)
    order = [reservation, claim, files, manifest, history, state]
    for before, after in pairwise(order):
        assert record.settled(before) < record.naming(after), f"{after} gets its name before {before} is on the disk"
    record.settled(state)
    assert record.naming(state) > max(  # the first state was linked, the second one swapped in
        at for at, event in enumerate(record.events) if isinstance(event, Named) and event.path in (history, manifest)
    )
