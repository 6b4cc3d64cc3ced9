"""The directory that an agent fills: what has a number is whole, whenever the agent was ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_registry.errors import ConflictError, FormatError, StorageError
from model_registry.payload import payload_files
from model_registry.servable import NATIVE, Variant
from model_registry.serving.sync.serving_directory import ServingDirectory
from tests.support.drafts import make_payload


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[ServingDirectory]:
    found = ServingDirectory(tmp_path / "dest")
    yield found
    found.close()


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    return Variant(NATIVE, payload_files(make_payload(tmp_path / "payload")))


def bring(directory: ServingDirectory, variant: Variant, version: int = 1, model: str = "digits") -> Path:
    incoming = directory.incoming(model, version)
    make_payload(incoming)
    directory.commit(incoming, model, version, variant)
    return directory.path(model, version)


def again(directory: ServingDirectory) -> ServingDirectory:
    """The directory as the next agent finds it."""
    directory.close()
    found = ServingDirectory(directory.root)
    found.clear()
    return found


def names(directory: ServingDirectory, model: str = "digits") -> set[str]:
    folder = directory.root / "models" / model
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_a_version_that_was_committed_is_here_for_the_next_agent_too(
    directory: ServingDirectory, variant: Variant
) -> None:
    bring(directory, variant)

    assert directory.here() == {"digits": {1: variant}}
    directory = again(directory)
    assert directory.here() == {"digits": {1: variant}}
    assert directory.verify("digits", 1, variant)
    directory.close()


def test_what_was_on_its_way_in_or_out_is_gone_for_the_next_agent(
    directory: ServingDirectory, variant: Variant
) -> None:
    make_payload(directory.incoming("digits", 2))
    bring(directory, variant).rename(directory.root / "models" / "digits" / ".leaving-1-abcd")
    (directory.root / ".slipway" / f".slipway-{'0' * 16}.tmp").write_text("half")

    directory = again(directory)

    assert names(directory) == set()
    assert directory.here() == {}
    assert sorted(path.name for path in (directory.root / ".slipway").rglob("*")) == ["lock", "versions"]
    directory.close()


def test_a_note_without_its_version_is_nothing(directory: ServingDirectory, variant: Variant) -> None:
    directory.note("digits", 1, variant)  # a crash before the rename

    assert directory.here() == {}
    directory = again(directory)
    assert not directory.is_own("digits", 1)
    bring(directory, variant)
    assert directory.here() == {"digits": {1: variant}}
    directory.close()


@pytest.mark.parametrize("damage", ["missing", "longer", "linked", "extra", "changed"])
def test_damage_is_noticed(directory: ServingDirectory, variant: Variant, damage: str) -> None:
    saved = bring(directory, variant) / "saved_model.pb"
    if damage == "missing":
        saved.unlink()
    elif damage == "longer":
        saved.write_bytes(saved.read_bytes() + b"x")
    elif damage == "linked":
        saved.rename(saved.with_name("elsewhere"))
        saved.symlink_to("elsewhere")
    elif damage == "extra":
        saved.with_name("more").touch()
    else:
        saved.write_bytes(b"x" * saved.stat().st_size)

    assert not directory.verify("digits", 1, variant)
    if damage not in ("changed", "extra"):  # which a look at names and sizes does not tell
        assert directory.here() == {}


def test_a_number_that_somebody_else_took_is_left_alone(directory: ServingDirectory, variant: Variant) -> None:
    theirs = directory.path("digits", 1)
    theirs.mkdir(parents=True)
    (theirs / "precious").touch()

    with pytest.raises(ConflictError, match="this agent did not put it there"):
        bring(directory, variant)

    assert (theirs / "precious").exists()
    assert directory.here() == {}


def test_a_version_that_is_discarded_leaves_nothing(directory: ServingDirectory, variant: Variant) -> None:
    bring(directory, variant)
    bring(directory, variant, 2)

    directory.discard("digits", 1)

    assert names(directory) == {"2"}
    assert directory.here() == {"digits": {2: variant}}
    directory.discard("digits", 1)


def test_modes_do_not_follow_the_umask(tmp_path: Path, variant: Variant) -> None:
    before = os.umask(0o077)
    try:
        directory = ServingDirectory(tmp_path / "new" / "dest")
        version = bring(directory, variant)
        directory.write_config("model_config_list {}")
        directory.close()
    finally:
        os.umask(before)

    modes = {path.stat().st_mode & 0o777 for path in version.rglob("*") if path.is_file()}
    assert modes == {0o644}
    folders = [version, *version.parents[:3], tmp_path / "new", *(path for path in version.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o755}
    assert (directory.root / "models.config").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("link", ["models", "models/digits", ".slipway", ".slipway/versions/digits"])
def test_nothing_is_written_through_a_link(tmp_path: Path, variant: Variant, link: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = tmp_path / "dest" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(elsewhere)

    with pytest.raises(StorageError, match="symbolic link"):
        bring(ServingDirectory(tmp_path / "dest"), variant)

    assert not list(elsewhere.iterdir())


def test_the_directory_itself_may_be_a_link(tmp_path: Path, variant: Variant) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "dest").symlink_to(tmp_path / "disk")

    bring(ServingDirectory(tmp_path / "dest"), variant)

    assert (tmp_path / "disk" / "models" / "digits" / "1" / "saved_model.pb").exists()


def test_one_agent_has_it_at_a_time(directory: ServingDirectory) -> None:
    with pytest.raises(ConflictError, match="another agent fills"):
        ServingDirectory(directory.root)
    directory.close()

    ServingDirectory(directory.root).close()


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "dest").touch()

    with pytest.raises(StorageError, match="expected a directory"):
        ServingDirectory(tmp_path / "dest")


def test_a_note_that_leads_elsewhere_is_not_believed(directory: ServingDirectory, variant: Variant) -> None:
    bring(directory, variant)
    note = directory.root / ".slipway" / "versions" / "digits" / "1.json"
    note.write_text(note.read_text().replace("saved_model.pb", "../../../../passwd"))

    directory = again(directory)

    assert directory.here() == {}
    directory.close()


def test_a_config_that_is_no_text_is_refused(directory: ServingDirectory) -> None:
    (directory.root / "models.config").write_bytes(b"\xff")

    with pytest.raises(FormatError, match="no UTF-8"):
        directory.config()
