"""What killed writers leave in a store, how it is told from what lives, and that exactly it can be removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from model_registry.errors import ConflictError, InvalidInputError, StorageError
from model_registry.payload import payload_files
from model_registry.storage import Leftover, ObjectStore, open_store
from tests.support.fixtures_s3 import Bucket

# Kills the process where a document has its temporary file and not yet its name.
PUT = """
import os, signal, sys
from model_registry.storage import open_store
os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
open_store(sys.argv[1]).put_new("registry/digits/versions/1.json", b"0123456789")
"""
# Kills it where a tree is copied from another file system and not yet renamed.
UPLOAD = """
import os, pathlib, signal, sys
from model_registry.payload import payload_files
from model_registry.storage import open_store
change_mode, root, source = os.fchmod, pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
def die_once_copied(*arguments):
    if [*root.glob("models/m/native/.*")]:
        os.kill(os.getpid(), signal.SIGKILL)
    change_mode(*arguments)
os.fchmod = die_once_copied
open_store(str(root)).upload_tree(source, "models/m/native/1/", payload_files(source))
"""
WORK = """
import sys
from model_registry.storage import open_store
with open_store(sys.argv[1]).workspace("run-1") as directory:
    (directory / "file").write_bytes(b"half")
    print("at work", flush=True)
    sys.stdin.read()
"""


def die(code: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


@contextmanager
def worker(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the workspace of run-1, and lives."""
    command = [sys.executable, "-c", WORK, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "at work\n"
            yield process
        finally:
            process.kill()


def make_tree(directory: Path) -> Path:
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"graph")
    (directory / "variables" / "v").write_bytes(b"123")
    return directory


def names(store: ObjectStore) -> list[str]:
    return [leftover.name for leftover in store.leftovers()]


def keys(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list("")]


def test_writes_that_came_to_their_end_leave_nothing(store: ObjectStore, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    etag = store.put_new("registry/a", b"1")
    store.put_if_match("registry/a", b"2", etag)
    with pytest.raises(ConflictError):
        store.put_new("registry/a", b"3")
    store.copy("registry/a", "registry/b")
    store.upload_tree(tree, "models/m/native/1/", payload_files(tree))
    with store.workspace("run-1") as directory:
        (directory / "file").write_bytes(b"")
        assert names(store) == []

    assert names(store) == []


def test_a_workspace_that_is_not_there_is_not_in_use(store: ObjectStore) -> None:
    store.put_new("staging/file", b"")
    store.put_new("staging/run-1/file", b"")

    assert not store.in_use("run-1")
    assert not store.in_use("file")
    assert not store.in_use("none")
    assert keys(store) == ["staging/file", "staging/run-1/file"]


@pytest.mark.parametrize("run", ["../registry", "", "/etc"])
def test_no_run_leaves_the_staging_folder(store: ObjectStore, run: str) -> None:
    with pytest.raises(InvalidInputError):
        store.in_use(run)


def test_a_registry_that_does_not_exist_has_no_leftovers(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "none"))

    assert names(store) == []
    assert not store.in_use("run-1")
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_a_registry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="expected a directory"):
        names(open_store(str(tmp_path / "file")))


def test_the_document_of_a_killed_writer_is_found_and_removed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put_new("registry/other", b"")
    die(PUT, tmp_path)

    [leftover] = store.leftovers()
    assert leftover.name.startswith("registry/digits/versions/.slipway-")
    assert leftover.size == 10
    assert 0 <= leftover.age < 60
    assert keys(store) == ["registry/other"]

    store.discard(leftover)
    store.discard(leftover)
    assert names(store) == []
    assert [path.name for path in (tmp_path / "registry").iterdir()] == ["other"]


def test_the_tree_of_a_killed_writer_is_one_leftover(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put_new("models/m/native/0/saved_model.pb", b"")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as source:  # another file system
        die(UPLOAD, tmp_path, make_tree(Path(source) / "tree"))

    [leftover] = store.leftovers()
    assert leftover.name == "models/m/native/.slipway-1.tmp"
    assert leftover.size == 8
    assert keys(store) == ["models/m/native/0/saved_model.pb"]

    store.discard(leftover)
    assert [path.name for path in (tmp_path / "models" / "m" / "native").iterdir()] == ["0"]


def _age(path: Path, seconds: float) -> None:
    then = path.lstat().st_mtime - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def test_a_tree_is_as_old_as_the_youngest_in_it(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    tree = make_tree(tmp_path / "models" / ".slipway-1.tmp")
    for path in [*tree.rglob("*"), tree]:
        _age(path, 5000)
    _age(tree / "variables" / "v", -1000)

    [leftover] = store.leftovers()

    assert 3900 < leftover.age < 4500


def test_what_is_written_to_again_is_not_discarded(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    path = tmp_path / ".slipway-1.tmp"
    path.write_bytes(b"killed")
    _age(path, 5000)
    [leftover] = store.leftovers()
    path.write_bytes(b"by another attempt")

    store.discard(leftover)

    assert path.read_bytes() == b"by another attempt"


def test_the_lock_is_no_leftover(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put_if_match("a", b"2", store.put_new("a", b"1"))

    assert (tmp_path / ".slipway-lock").exists()
    assert names(store) == []


def test_no_symbolic_link_is_followed(tmp_path: Path) -> None:
    outside = make_tree(tmp_path / "outside")
    (outside / ".slipway-1.tmp").write_bytes(b"not ours")
    root = tmp_path / "registry"
    (root / "models").mkdir(parents=True)
    (root / "models" / "link").symlink_to(outside)
    (root / "models" / ".slipway-2.tmp").symlink_to(outside)
    (root / ".slipway-3.tmp").mkdir()
    (root / ".slipway-3.tmp" / "link").symlink_to(outside)
    store = open_store(str(root))
    before = sorted(outside.rglob("*"))

    assert names(store) == [".slipway-3.tmp", "models/.slipway-2.tmp"]
    for leftover in store.leftovers():
        store.discard(leftover)

    assert names(store) == []
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["registry/a", ".slipway-lock", "../.slipway-1.tmp", "/tmp/.slipway-1.tmp", "a/../../.slipway-1.tmp", ""]
)
def test_nothing_but_a_leftover_is_discarded(store_url: str, name: str) -> None:
    store = open_store(store_url)
    store.put_new("registry/a", b"1")

    with pytest.raises(InvalidInputError):
        store.discard(Leftover(name, 0, 1e9))

    assert keys(store) == ["registry/a"]


def test_a_workspace_is_in_use_as_long_as_its_process_lives(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with worker(str(tmp_path)) as process:
        assert store.in_use("run-1")
        with pytest.raises(ConflictError, match="in use"), store.workspace("run-1"):
            pytest.fail("two have one workspace")
        process.kill()
        process.wait()

        assert not store.in_use("run-1")
    assert keys(store) == ["staging/run-1/file"]
    with store.workspace("run-1") as directory:
        assert list(directory.iterdir()) == []
        assert store.in_use("run-1")


def test_an_unfinished_upload_is_found_and_exactly_it_is_ended(s3_bucket: Bucket) -> None:
    client: Any = boto3.session.Session().client("s3")
    store = open_store(s3_bucket.url)

    def start(key: str) -> str:
        return str(client.create_multipart_upload(Bucket=s3_bucket.name, Key=key)["UploadId"])

    key = "registry-under-test/models/m/native/1/variables/v"
    first, second = start(key), start(key)
    client.upload_part(Bucket=s3_bucket.name, Key=key, UploadId=first, PartNumber=1, Body=b"x" * (5 << 20))
    client.upload_part(Bucket=s3_bucket.name, Key=key, UploadId=first, PartNumber=2, Body=b"y")
    for foreign in ("another-registry/models/m/native/1/v", "registry-under-test/of-somebody-else"):
        start(foreign)
    assert keys(store) == []

    found = {leftover.size: leftover for leftover in store.leftovers()}
    assert sorted(found) == [0, (5 << 20) + 1]
    assert all(0 <= leftover.age < 60 for leftover in found.values())
    assert all(leftover.name.startswith("models/m/native/1/variables/v") for leftover in found.values())

    store.discard(found[0])
    store.discard(found[0])
    assert list(store.leftovers()) != []
    client.complete_multipart_upload(
        Bucket=s3_bucket.name,
        Key=key,
        UploadId=first,
        MultipartUpload={
            "Parts": [
                {"PartNumber": part["PartNumber"], "ETag": part["ETag"]}
                for part in client.list_parts(Bucket=s3_bucket.name, Key=key, UploadId=first)["Parts"]
            ]
        },
    )

    store.discard(found[(5 << 20) + 1])  # finished since: its object stays
    assert names(store) == []
    assert keys(store) == ["models/m/native/1/variables/v"]
    left = client.list_multipart_uploads(Bucket=s3_bucket.name)["Uploads"]
    assert second not in [upload["UploadId"] for upload in left]
    assert len(left) == 2
