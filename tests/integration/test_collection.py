"""What garbage collection deletes, and what it leaves, on every store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model_registry import paths
from model_registry.collection import collect, plan
from model_registry.errors import FormatError, NotFoundError, StorageError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.reservation import Reservation
from model_registry.servable import Run
from model_registry.signing import Signer, Verifier
from model_registry.state import Origin
from model_registry.storage import ObjectStore
from model_registry.tombstone import Tombstone
from tests.support.fixtures_s3 import Bucket
from tests.support.garbage import (
    ANN,
    HOUR,
    Refusing,
    abandon,
    bury,
    contents,
    gc,
    kinds,
    make_garbage,
    numbers_with_files,
    publish_many,
)
from tests.support.publishers import (
    outcome_of,
    payload_keys,
    publish,
    wait_until,
)


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    return Registry(store, lease=2.0)


def test_a_retired_version_is_deleted_and_its_number_stays_taken(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 2)
    registry.retire("digits", [1], origin=ANN)

    report = gc(registry)

    assert kinds(report) == [("version", "digits:1")]
    assert (report.items[0].files, report.items[0].bytes) == (4, 24)
    assert (report.failures, report.notes) == ((), ())
    assert outcome_of(registry.store, 1) == replace(
        Tombstone("gc ann@build-7", "retired at revision 1, and collected", "", source_sha256="0" * 64),
        when=outcome_of(registry.store, 1).when,  # type: ignore[attr-defined]
    )
    assert numbers_with_files(registry.store) == {2}
    assert registry.verify(registry.get(Reference("digits", version=2))) == []
    assert registry.state("digits").retired == {}
    collected = registry.history("digits")[0]
    assert (collected.transition.action, collected.transition.versions) == ("collect", (1,))
    assert (collected.origin.who, collected.origin.why) == ("ann@build-7", "gc")
    with pytest.raises(NotFoundError, match="digits:1 does not exist: retired at revision 1, and collected"):
        registry.get(Reference("digits", version=1))
    assert publish(registry, tmp_path / "again", "a1")[0].version == 3
    assert plan(registry, grace=0.0).items == ()


def test_a_retired_version_stays_for_the_grace(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 3)
    registry.retire("digits", [1], origin=ANN)
    registry.promote("digits", 3, "stable", origin=ANN)  # another transition: history tells the age now
    before = contents(registry.store)

    report = gc(registry, grace=HOUR)

    assert report.items == ()
    assert [(note.name, note.why) for note in report.notes] == [
        ("digits:1", "retired at revision 1, and the grace is not over yet")
    ]
    assert contents(registry.store) == before
    assert kinds(gc(registry)) == [("version", "digits:1")]


@pytest.mark.parametrize("retired_last", [True, False])
def test_the_age_of_a_retirement_is_read_from_the_state_or_from_history(
    registry: Registry, tmp_path: Path, *, retired_last: bool
) -> None:
    publish_many(registry, tmp_path, 2)
    registry.retire("digits", [1], origin=ANN)
    if not retired_last:
        registry.promote("digits", 2, "stable", origin=ANN)
    key = paths.state("digits") if retired_last else paths.record("digits", 1)
    wait_until(lambda: registry.store.head(key).age >= 2.0)
    age = registry.store.head(key).age - 1.0  # S3 tells whole seconds here, and fractions in a listing

    assert kinds(plan(registry, grace=age)) == [("version", "digits:1")]
    assert kinds(plan(registry, grace=age + 600)) == []


def test_keep_retires_all_but_the_newest_and_what_labels_need_in_one_transition(
    registry: Registry, tmp_path: Path
) -> None:
    publish_many(registry, tmp_path, 7)
    for version in (2, 4):
        registry.promote("digits", version, "stable", origin=ANN)

    report = gc(registry, keep=2)

    assert kinds(report) == [("retire", f"digits:{version}") for version in (5, 3, 1)]
    assert {note.name for note in report.notes} == {"digits:2", "digits:4"}
    assert registry.history("digits")[0].transition.versions == (1, 3, 5)
    assert registry.history("digits")[0].origin == Origin("ann@build-7", "gc --keep 2")
    assert len(registry.history("digits")) == 3
    assert numbers_with_files(registry.store) == set(range(1, 8))  # deleted by a later run, after the grace

    assert len(gc(registry, keep=2).items) == 3
    assert [listed.version for listed in registry.listing("digits")] == [7, 6, 4, 2]
    registry.roll_back("digits", "stable", origin=ANN)
    assert registry.verify(registry.get(Reference.parse("digits@stable"))) == []


def test_rubbish_with_high_numbers_pushes_no_version_out(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 3)
    for number in (10, 11):
        registry.store.put_new(paths.manifest("digits", number), b"x" * 2000)

    report = gc(registry, keep=2)

    assert [(item.kind, item.name) for item in report.items] == [("retire", "digits:1")]
    assert {"digits:10", "digits:11"} <= {note.name for note in report.notes}


def test_versions_that_readers_refuse_push_out_none_that_they_take(store: ObjectStore, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    signed = Registry(store, signer=Signer(key), verifier=Verifier(key.public_key()))
    publish_many(signed, tmp_path / "signed", 2)
    publish(Registry(store), tmp_path / "unsigned", "unsigned")

    assert gc(signed, keep=1).items[0].name == "digits:1"
    assert signed.get(Reference("digits", version=2)).signature


def test_a_version_whose_manifest_cannot_be_read_is_deleted_in_every_variant(
    registry: Registry, tmp_path: Path
) -> None:
    publish_many(registry, tmp_path, 2)
    registry.retire("digits", [1], origin=ANN)
    store, key = registry.store, paths.manifest("digits", 1)
    store.put_if_match(key, b"{" * 2000, store.get(key).etag)
    store.put_new(f"{paths.payload('digits', 'tensorrt-fp16-sm89', 1)}saved_model.pb", b"graph")

    report = gc(registry)

    assert report.failures == ()
    assert report.items[0].files == 5
    assert numbers_with_files(store) == {2}
    assert isinstance(outcome_of(store, 1), Tombstone)


def test_a_damaged_tombstone_of_a_retired_version_is_told_and_left(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 2)
    registry.retire("digits", [1], origin=ANN)
    planned = plan(registry, grace=0.0)
    store, key = registry.store, paths.manifest("digits", 1)
    store.put_if_match(key, b"damaged", store.get(key).etag)

    report = collect(registry, planned, origin=ANN)

    assert [(failure.name, type(failure.error)) for failure in report.failures] == [("digits:1", FormatError)]
    assert [note.name for note in plan(registry, grace=0.0).notes] == ["digits:1"]
    assert numbers_with_files(store) == {1, 2}


def test_what_is_not_retired_any_more_is_left(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 2)
    registry.retire("digits", [1], origin=ANN)
    planned = plan(registry, grace=0.0)
    registry.store.delete([paths.state("digits")])  # and the copy that is put back is older

    report = collect(registry, planned, origin=ANN)

    assert report.items == ()
    assert [note.name for note in report.notes] == ["digits:1"]
    assert registry.verify(registry.get(Reference("digits", version=1))) == []


@pytest.mark.parametrize("readable", [True, False])
def test_an_upload_that_was_abandoned_is_ended_and_deleted(
    registry: Registry, tmp_path: Path, *, readable: bool
) -> None:
    publish_many(registry, tmp_path, 1)
    abandon(registry.store, 2)
    if not readable:
        for key in (paths.reservation("digits", 2), paths.claim("digits", "dead")):
            registry.store.put_if_match(key, b"{}", registry.store.get(key).etag)

    assert plan(registry, grace=HOUR).items == ()
    report = gc(registry)

    assert kinds(report) == [("orphan", "digits:2")]
    tombstone = outcome_of(registry.store, 2)
    assert isinstance(tombstone, Tombstone)
    assert (tombstone.who, tombstone.why) == ("gc ann@build-7", "reserved and never committed, and collected")
    assert numbers_with_files(registry.store) == {1}
    if readable:
        assert publish(registry, tmp_path / "again", "dead")[0].version == 3


def test_an_identity_that_is_no_key_reads_no_other_document(registry: Registry) -> None:
    reservation = Reservation(1, "../state", Run("1", "evil"), "2030-01-01T00:00:00+00:00", "w")
    registry.store.put_new(paths.reservation("digits", 1), reservation.to_json())

    assert kinds(gc(registry)) == [("orphan", "digits:1")]


def test_files_that_are_somebody_elses_stay(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 1)
    store = registry.store
    foreign = [
        f"models/digits/native/{name}" for name in ("2/saved_model.pb", "7/saved_model.pb", "008/a", "v8/a", "README")
    ]
    for key in foreign:
        store.put_new(key, b"foreign")
    store.put_new(paths.reservation("digits", 2), b"{}")
    bury(store, 2, occupied=True)
    before = contents(store)

    report = gc(registry)

    assert report.items == ()
    assert {note.name: note.why for note in report.notes} == {
        "digits:2": "the files there are not its own",
        "digits:7": "nobody reserved this number: the files there are not ours",
    }
    assert contents(store) == before


def test_what_a_label_needs_stays_although_its_manifest_is_gone(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 2)
    for version in (1, 2):
        registry.promote("digits", version, "stable", origin=ANN)
    for version in (1, 2):
        registry.store.delete([paths.manifest("digits", version)])
    bury(registry.store, 2)
    before = contents(registry.store)

    report = gc(registry, keep=1)

    assert report.items == ()
    assert {note.name for note in report.notes} == {"digits:1", "digits:2"}
    assert contents(registry.store) == before


def test_only_the_models_that_were_named_are_collected(registry: Registry, tmp_path: Path) -> None:
    for model in ("digits", "faces"):
        publish_many(registry, tmp_path, 2, model)
        registry.retire(model, [1], origin=ANN)
    registry.store.put_new("staging/run-1/log", b"")

    assert kinds(gc(registry, "faces", "faces")) == [("version", "faces:1")]
    assert kinds(gc(registry)) == [("version", "digits:1"), ("staging", "staging/run-1/")]
    with pytest.raises(NotFoundError, match="no model 'digit'"):
        plan(registry, ["digits", "digit"])


def test_a_plan_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    make_garbage(registry, tmp_path)
    before = contents(registry.store)

    planned = plan(registry, keep=1, grace=0.0)

    assert len(planned.items) == 5
    assert contents(registry.store) == before


def test_what_fails_is_told_and_the_rest_goes_on(registry: Registry, tmp_path: Path) -> None:
    publish_many(registry, tmp_path, 4)
    publish_many(registry, tmp_path, 1, "faces")
    registry.retire("digits", [1, 2, 3], origin=ANN)
    registry.store.put_new(paths.state("faces"), b"{}")

    report = gc(Registry(Refusing(registry.store, paths.payload("digits", "native", 2))))

    assert {failure.name: type(failure.error) for failure in report.failures} == {
        "faces": FormatError,
        "digits:2": StorageError,
    }
    assert kinds(report) == [("version", "digits:1"), ("version", "digits:3")]
    left = {tuple(key.split("/")[1:4]) for key in payload_keys(registry.store)}
    assert left == {("digits", "native", "2"), ("digits", "native", "4"), ("faces", "native", "1")}
    assert list(registry.state("digits").retired) == [2]
    assert kinds(gc(registry)) == [("version", "digits:2")]
    assert registry.state("digits").retired == {}


def test_a_listing_of_what_no_store_of_ours_could_hold_stops_nothing(s3_bucket: Bucket, tmp_path: Path) -> None:
    registry = Registry.open(s3_bucket.url)
    publish_many(registry, tmp_path, 2)
    registry.retire("digits", [1], origin=ANN)
    client = boto3.client("s3")
    keys = [f"registry-under-test/models/digits/{name}" for name in ("native/1//odd", "b\\ack/1/file", "native/1/\x07")]
    for key in keys:
        client.put_object(Bucket=s3_bucket.name, Key=key, Body=b"")

    report = gc(registry)

    assert (kinds(report), report.failures) == ([("version", "digits:1")], ())
    listed = client.list_objects_v2(Bucket=s3_bucket.name, Prefix="registry-under-test/models/")["Contents"]
    assert {found["Key"] for found in listed} >= set(keys)
