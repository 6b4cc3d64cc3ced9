"""What a store says of a trained model: the same as long as nobody writes, another one afterwards."""

from __future__ import annotations

import os
import re
from pathlib import Path

from model_registry.revision import revision_of, revision_of_objects, revision_of_path
from model_registry.storage.base import ObjectInfo
from tests.support.prefect_api import until


def listed(**etags: str) -> list[tuple[str, ObjectInfo]]:
    return [(path, ObjectInfo(f"saved/{path}", 3, 1.0, etag)) for path, etag in etags.items()]


def test_a_revision_covers_where_the_model_lies_and_all_of_its_objects() -> None:
    first = revision_of_objects("s3://b/saved", listed(x="1", y="2"))

    assert first is not None and re.fullmatch("[0-9a-f]{64}", first)
    assert first == revision_of_objects("s3://b/saved/", listed(y="2", x="1"))
    others = [
        revision_of_objects("s3://b/other", listed(x="1", y="2")),
        revision_of_objects("s3://b/saved", listed(x="1", y="3")),
        revision_of_objects("s3://b/saved", listed(x="1")),
        revision_of_objects("s3://b/saved", listed(x="1", y="2", z="2")),
        revision_of_objects("s3://b/saved", listed(x="2", y="1")),
    ]
    assert first not in others
    assert len(set(others)) == len(others)


def test_no_revision_is_told_where_the_store_tells_too_little() -> None:
    assert revision_of_objects("s3://b/saved", []) is None
    assert revision_of_objects("s3://b/saved", listed(x="1", y="")) is None


def test_a_file_that_is_replaced_or_touched_has_another_revision(tmp_path: Path) -> None:
    model = tmp_path / "digits.keras"
    assert revision_of(str(model)) is None
    model.write_bytes(b"one")
    first = revision_of(str(model))
    assert first == revision_of_path(model)

    other = tmp_path / "new"
    other.write_bytes(b"two")
    status = model.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(model)  # the same size and time

    second = revision_of_path(model)
    os.utime(model, ns=(0, 0))
    assert len({first, second, revision_of_path(model)}) == 3


def test_a_file_that_is_written_in_place_has_another_revision_although_its_time_was_set_back(tmp_path: Path) -> None:
    model = tmp_path / "digits.keras"
    model.write_bytes(b"one")
    first, before = revision_of_path(model), model.stat()

    def written_and_set_back() -> bool:
        with model.open("r+b") as file:
            file.write(b"two")
        os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
        return model.stat().st_ctime_ns != before.st_ctime_ns

    until(written_and_set_back, "the file system's clock ticks")

    assert revision_of_path(model) not in (None, first)


def test_a_directory_has_another_revision_when_any_of_its_files_does(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(b"graph")
    (saved / "variables" / "index").write_bytes(b"index")
    first = revision_of_path(saved)
    assert first is not None

    (saved / "variables" / "data").write_bytes(b"")

    assert revision_of_path(saved) not in (None, first)
