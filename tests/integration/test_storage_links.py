"""Symbolic links that somebody put into a local registry: read through, never written or deleted through."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model_registry.errors import NotFoundError, StorageError
from model_registry.paths import Reference
from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.storage import Leftover, ObjectStore, open_store
from tests.support.garbage import ANN, gc, kinds, publish_many

VERSIONS = "models/digits/native"
REFUSAL = "linked is a symbolic link, and nothing is written or deleted through one"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(root: Path, tmp_path: Path) -> Registry:
    """Three versions."""
    registry = Registry(open_store(str(root)))
    publish_many(registry, tmp_path / "published", 3)
    return registry


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What belongs to somebody else."""
    directory = tmp_path / "outside"
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"precious")
    (directory / "variables" / "v").write_bytes(b"precious too")
    return directory


@pytest.fixture
def linked(root: Path, outside: Path) -> ObjectStore:
    """A store with a link to what lies outside, at `models/linked`."""
    store = open_store(str(root))
    store.put_new("registry/a", b"1")
    (root / "models").mkdir()
    (root / "models" / "linked").symlink_to(outside)
    return store


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def problems(registry: Registry, version: int) -> list[tuple[str, str]]:
    found = registry.verify(registry.get(Reference("digits", version=version)))
    return [(problem.path, problem.kind) for problem in found]


def test_a_version_that_is_a_link_is_never_collected_and_what_it_leads_to_stays(registry: Registry, root: Path) -> None:
    shutil.rmtree(root / VERSIONS / "2")
    (root / VERSIONS / "2").symlink_to("1")
    registry.retire("digits", [2, 3], origin=ANN)

    for _ in range(2):  # told until somebody does something about it
        report = gc(registry)
        assert [failure.name for failure in report.failures] == ["digits:2"]
        assert f"{VERSIONS}/2 is a symbolic link" in report.failures[0].error.message

    assert problems(registry, 1) == []
    assert sorted(path.name for path in (root / VERSIONS).iterdir()) == ["1", "2"]


def test_gc_goes_on_after_a_link(registry: Registry, root: Path) -> None:
    shutil.rmtree(root / VERSIONS / "2")
    (root / VERSIONS / "2").symlink_to("1")
    registry.retire("digits", [2, 3], origin=ANN)

    assert kinds(gc(registry)) == [("version", "digits:3")]


def test_a_link_in_a_version_goes_with_it_and_what_it_leads_to_stays(
    registry: Registry, root: Path, outside: Path
) -> None:
    (root / VERSIONS / "3" / "assets").symlink_to(outside)
    before = contents(outside)
    registry.retire("digits", [3], origin=ANN)

    report = gc(registry)

    assert (kinds(report), report.failures) == ([("version", "digits:3")], ())
    assert contents(outside) == before
    assert not (root / VERSIONS / "3").exists()


def test_a_version_that_is_a_link_fails_verification(registry: Registry, root: Path) -> None:
    shutil.rmtree(root / VERSIONS / "2")
    (root / VERSIONS / "2").symlink_to("1")

    assert {kind for _, kind in problems(registry, 2)} == {"missing"}


def test_a_directory_of_a_version_that_is_a_link_fails_verification(registry: Registry, root: Path) -> None:
    shutil.rmtree(root / VERSIONS / "2" / "variables")
    (root / VERSIONS / "2" / "variables").symlink_to("../1/variables")

    assert problems(registry, 2) == [
        ("variables", "extra"),
        ("variables/variables.data-00000-of-00001", "missing"),
        ("variables/variables.index", "missing"),
    ]


def test_a_file_of_a_version_that_is_a_link_fails_verification(registry: Registry, root: Path) -> None:
    (root / VERSIONS / "2" / "saved_model.pb").unlink()
    (root / VERSIONS / "2" / "saved_model.pb").symlink_to("../1/saved_model.pb")

    assert problems(registry, 2) == [("saved_model.pb", "missing")]


def test_a_listing_walks_into_no_link(linked: ObjectStore, root: Path) -> None:
    (root / "registry" / "loop").symlink_to(".")
    (root / "registry" / "dangling").symlink_to("nowhere")

    assert [info.key for info in linked.list("")] == [
        "models/linked",
        "registry/a",
        "registry/dangling",
        "registry/loop",
    ]
    assert list(linked.list_children("registry/")) == ["a", "dangling", "loop"]


def test_what_lies_beyond_a_link_can_be_read_and_has_no_digest(linked: ObjectStore, tmp_path: Path) -> None:
    key = "models/linked/saved_model.pb"

    assert linked.get(key).data == b"precious"
    assert linked.head(key).size == 8
    assert linked.download(key, tmp_path / "copy").bytes == 8
    assert [info.key for info in linked.list("models/linked/")] == [key, "models/linked/variables/v"]
    linked.copy(key, "models/copy")
    assert linked.get("models/copy").data == b"precious"
    with pytest.raises(NotFoundError):
        linked.digest(key)


def _upload(store: ObjectStore, tree: Path) -> None:
    store.upload_tree(tree, "models/linked/1/", payload_files(tree))


def _work(store: ObjectStore, root: Path) -> None:
    (root / "staging").mkdir()
    (root / "staging" / "linked").symlink_to(root / "models" / "linked")
    with store.workspace("linked/run"):
        pytest.fail("a workspace beyond a link")


@pytest.mark.parametrize(
    "change",
    [
        lambda store, root, tree: store.put_new("models/linked/new", b""),
        lambda store, root, tree: store.put_new("models/linked/deep/new", b""),
        lambda store, root, tree: store.put_if_match(
            "models/linked/saved_model.pb", b"", store.get("models/linked/saved_model.pb").etag
        ),
        lambda store, root, tree: store.copy("registry/a", "models/linked/saved_model.pb"),
        lambda store, root, tree: store.delete(["registry/a", "models/linked/saved_model.pb"]),
        lambda store, root, tree: store.delete(["models/linked/variables/v"]),
        lambda store, root, tree: store.discard(Leftover("models/linked/.slipway-1.tmp", 0, 0.0)),
        lambda store, root, tree: _upload(store, tree),
        lambda store, root, tree: _work(store, root),
    ],
    ids=["put_new", "mkdir", "put_if_match", "copy", "delete", "delete deeper", "discard", "upload", "workspace"],
)
def test_nothing_is_written_or_deleted_through_a_link(
    linked: ObjectStore, root: Path, outside: Path, tmp_path: Path, change: Callable[[ObjectStore, Path, Path], None]
) -> None:
    (outside / ".slipway-1.tmp").write_bytes(b"somebody else's")
    before = contents(outside)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "saved_model.pb").write_bytes(b"graph")

    with pytest.raises(StorageError, match=REFUSAL) as caught:
        change(linked, root, tmp_path / "tree")

    assert not caught.value.transient
    assert caught.value.hint
    assert contents(outside) == before
    assert linked.get("registry/a").data == b"1"


def test_a_document_that_is_a_link_is_replaced_and_what_it_leads_to_stays(linked: ObjectStore, root: Path) -> None:
    (root / "registry" / "b").symlink_to(root / "models" / "linked" / "saved_model.pb")

    linked.put_if_match("registry/b", b"new", linked.get("registry/b").etag)

    assert linked.get("registry/b").data == b"new"
    assert linked.get("models/linked/saved_model.pb").data == b"precious"


def test_a_lock_that_is_a_link_is_refused(linked: ObjectStore, root: Path, tmp_path: Path) -> None:
    (root / ".slipway-lock").symlink_to(tmp_path / "made-through-a-link")

    with pytest.raises(StorageError):
        linked.put_if_match("registry/a", b"2", linked.get("registry/a").etag)

    assert not (tmp_path / "made-through-a-link").exists()


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "registry").symlink_to(tmp_path / "disk")
    registry = Registry(open_store(str(tmp_path / "registry")))
    publish_many(registry, tmp_path / "published", 2)
    registry.promote("digits", 2, "stable", origin=ANN)
    registry.retire("digits", [1], origin=ANN)

    report = gc(registry)

    assert (kinds(report), report.failures) == ([("version", "digits:1")], ())
    assert problems(registry, 2) == []
