"""Collecting what belongs to no model: staging directories, and what interrupted writes left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from model_registry.collection import Plan, collect, plan
from model_registry.garbage import Item
from model_registry.registry import Registry
from model_registry.storage import ObjectStore
from model_registry.storage.local import LocalStore
from tests.support.fixtures_s3 import Bucket
from tests.support.garbage import (
    ANN,
    HOUR,
    contents,
    gc,
    kinds,
    numbers_with_files,
    publish_many,
)
from tests.support.publishers import (
    wait_until,
)


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    return Registry(store, lease=2.0)


def test_the_staging_directories_of_ended_runs_are_deleted(registry: Registry) -> None:
    store = registry.store
    keys = ["staging/run-1/model/saved_model.pb", "staging/run-1/log", "staging/run-2/log"]
    for key in keys:
        store.put_new(key, b"123")
    store.put_new("staging/README", b"nobody's")

    assert plan(registry, grace=HOUR).items == ()
    report = gc(registry)

    assert kinds(report) == [("staging", "staging/run-1/"), ("staging", "staging/run-2/")]
    assert [(item.files, item.bytes) for item in report.items] == [(2, 6), (1, 3)]
    assert list(contents(store)) == ["staging/README"]


def test_a_run_that_goes_on_meanwhile_keeps_its_staging_directory(registry: Registry) -> None:
    registry.store.put_new("staging/run-1/log", b"1")
    wait_until(lambda: all(info.age >= 4.0 for info in registry.store.list("")))
    planned = plan(registry, grace=4.0)
    registry.store.put_new("staging/run-1/model", b"2")

    report = collect(registry, planned, origin=ANN)

    assert (kinds(planned), report.items) == ([("staging", "staging/run-1/")], ())
    assert len(contents(registry.store)) == 2


def test_a_workspace_stays_while_its_process_lives(tmp_path: Path) -> None:
    registry = Registry(LocalStore(tmp_path / "registry"))
    with registry.store.workspace("run-1") as directory:
        (directory / "model").write_bytes(b"at work")
        first = plan(registry, grace=0.0)
        report = collect(registry, _unaware(first), origin=ANN)
        assert (directory / "model").read_bytes() == b"at work"

    assert (first.items, report.items) == ((), ())
    assert [note.name for note in (*first.notes, *report.notes)] == ["staging/run-1/"] * 3


def _unaware(planned: Plan) -> Plan:
    """The plan of somebody who looked before the run began."""
    return replace(planned, items=(Item("staging", "staging/run-1/", "", 1, 7, 0.0),))


def test_what_interrupted_writes_left_on_a_disk_is_deleted(tmp_path: Path) -> None:
    registry = Registry(LocalStore(tmp_path / "registry"))
    publish_many(registry, tmp_path / "made", 1)
    left = tmp_path / "registry/models/digits/native/.slipway-5.tmp"
    left.mkdir()
    (left / "saved_model.pb").write_bytes(b"half")

    assert plan(registry, ["digits"], grace=0.0).items == ()
    assert plan(registry, grace=HOUR).items == ()
    assert kinds(gc(registry)) == [("leftover", "models/digits/native/.slipway-5.tmp")]
    assert not left.exists()
    assert numbers_with_files(registry.store) == {1}


def test_uploads_that_nobody_finished_are_ended(s3_bucket: Bucket) -> None:
    registry = Registry.open(s3_bucket.url)
    client = boto3.client("s3")
    key = "registry-under-test/models/digits/native/1/saved_model.pb"
    client.create_multipart_upload(Bucket=s3_bucket.name, Key=key)

    assert plan(registry, grace=HOUR).items == ()
    report = gc(registry)

    assert [item.kind for item in report.items] == ["leftover"]
    assert "Uploads" not in client.list_multipart_uploads(Bucket=s3_bucket.name)
