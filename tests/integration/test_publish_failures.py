"""Publishing where files lie already, and on stores that fail in the middle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from model_registry import paths
from model_registry.errors import FormatError, StorageError
from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.servable import Variant
from model_registry.storage import ObjectStore
from model_registry.tombstone import Tombstone
from tests.support.drafts import make_draft, make_payload
from tests.support.failing_stores import (
    FailingCommits,
    FailingTombstones,
    IntrudedUploads,
    OvertakenClaims,
    UnheardClaims,
    UnheardRenewal,
)
from tests.support.publishers import SlowStore, outcome_of, payload_keys, publish, renewals_of, wait_until

_LEASE = 2.0
_FOREIGN = f"{paths.payload('digits', 'native', 1)}saved_model.pb"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What reaches those who listen to `slipway`, as the command line and Prefect do."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
    logger = logging.getLogger("slipway")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield heard
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_files_that_lie_there_already_stay_and_the_next_number_is_taken(
    store: ObjectStore, tmp_path: Path, lines: list[str]
) -> None:
    store.put_new(_FOREIGN, b"foreign")

    version, reused = publish(Registry(store), tmp_path / "1")

    assert (version.version, reused) == (2, False)
    assert store.get(_FOREIGN).data == b"foreign"
    assert Registry(store).verify(version) == []
    assert lines == ["WARNING digits: files that no publisher reserved lie at version 1; they stay"]


def test_numbers_in_use_are_passed_over_and_no_others(store: ObjectStore, tmp_path: Path) -> None:
    for number in ("1", "003", "1700000000", "v2", "²"):
        store.put_new(f"models/digits/native/{number}/saved_model.pb", b"foreign")

    assert [publish(Registry(store), tmp_path / name, name)[0].version for name in ("a", "b")] == [2, 4]


def test_files_that_come_before_the_upload_stay_and_the_next_number_is_taken(
    store: ObjectStore, tmp_path: Path
) -> None:
    version, reused = publish(Registry(IntrudedUploads(store)), tmp_path / "1")

    assert (version.version, reused) == (2, False)
    assert store.get(_FOREIGN).data == b"foreign"
    assert isinstance(outcome_of(store, 1), Tombstone)
    assert Registry(store).verify(version) == []


def test_a_failed_upload_deletes_nothing_that_it_did_not_write(store: ObjectStore, tmp_path: Path) -> None:
    slow = SlowStore(store)
    directory = make_payload(tmp_path / "1")
    draft = replace(make_draft(), variants=(Variant("native", payload_files(directory)),))
    (directory / "saved_model.pb").write_bytes(b"another graph")
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(Registry(slow).publish, draft, {"native": directory})
        assert slow.uploading.wait(30)
        extra = f"{paths.payload('digits', 'native', 1)}README"
        store.put_new(extra, b"foreign")
        slow.go_on.set()
        assert isinstance(published.exception(60), StorageError)

    assert store.get(extra).data == b"foreign"


def test_a_commit_is_tried_again_when_the_store_is_away_for_a_moment(store: ObjectStore, tmp_path: Path) -> None:
    version, reused = publish(Registry(FailingCommits(store, 2), lease=_LEASE), tmp_path / "1")

    assert (version.version, reused) == (1, False)
    assert Registry(store).verify(version) == []


@pytest.mark.parametrize("failing", [1, 3, 6, 10])
@pytest.mark.parametrize("force", [False, True])
def test_a_commit_that_nobody_heard_of_makes_one_version(
    store: ObjectStore, tmp_path: Path, *, force: bool, failing: int
) -> None:
    flaky = FailingCommits(store, failing, heard=False)

    version, reused = publish(Registry(flaky, lease=_LEASE), tmp_path / "1", force=force)

    assert (version.version, reused) == (1, False)
    assert Registry(store).versions("digits") == [version]
    assert Registry(store).verify(version) == []


def test_a_store_that_stays_away_is_reported_as_what_it_is(store: ObjectStore, tmp_path: Path) -> None:
    flaky = FailingCommits(store, 5)
    payload = make_payload(tmp_path / "1")

    with pytest.raises(StorageError, match="the store is away") as caught:
        Registry(flaky, lease=_LEASE).publish(make_draft(), {"native": payload})

    assert caught.value.transient is payload.is_dir()
    assert ("moved into the registry" in caught.value.message) is not payload.is_dir()
    assert Registry(store).versions("digits") == []
    assert payload_keys(store) == []
    if caught.value.transient:
        assert Registry(store).publish(make_draft(), {"native": payload})[0].version == 2


def test_a_forced_commit_in_doubt_is_not_tried_again(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="whether digits:1 was committed cannot be told") as caught:
        publish(Registry(FailingCommits(store, 100, heard=False), lease=_LEASE), tmp_path / "1", force=True)

    assert not caught.value.transient
    version, _ = publish(Registry(store), tmp_path / "2")
    assert Registry(store).versions("digits") == [version]
    assert Registry(store).verify(version) == []


def test_a_commit_that_was_refused_for_good_is_in_no_doubt(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^the store is away for the moment$") as caught:
        publish(Registry(FailingCommits(store, 1, transient=False)), tmp_path / "1", force=True)

    assert not caught.value.transient
    assert payload_keys(store) == []


def test_waiting_for_another_publisher_is_told_once(store: ObjectStore, tmp_path: Path, lines: list[str]) -> None:
    slow = SlowStore(store)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(publish, Registry(slow, lease=_LEASE), tmp_path / "1", run="nightly")
        assert slow.uploading.wait(30)
        second = pool.submit(publish, Registry(store, lease=_LEASE), tmp_path / "2")
        renewals = renewals_of(store)
        wait_until(lambda: lines and renewals_of(store) >= renewals + 3)  # as long as some polls
        slow.go_on.set()
        first.result(60)
        second.result(60)

    assert len(lines) == 1
    assert lines[0].startswith("INFO digits: run 'nightly' publishes the same content as version 1 since 20")


def test_a_claim_is_renewed_on_after_a_renewal_that_nobody_heard_of(store: ObjectStore, tmp_path: Path) -> None:
    deaf = UnheardRenewal(store)
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(publish, Registry(deaf, lease=_LEASE), tmp_path / "1")
        try:
            wait_until(lambda: deaf.unheard and renewals_of(store) >= 3)
        finally:
            deaf.go_on.set()

        assert published.result(60)[0].version == 1


def test_a_forced_publisher_that_is_overtaken_takes_its_files_back(store: ObjectStore, tmp_path: Path) -> None:
    first, _ = publish(Registry(store), tmp_path / "1")

    with pytest.raises(StorageError, match="away"):
        publish(Registry(OvertakenClaims(store)), tmp_path / "2", force=True)

    assert Registry(store).find("digits", "a1") == first
    assert all(key.startswith(paths.payload("digits", "native", 1)) for key in payload_keys(store))


def test_a_publisher_knows_its_own_claim(store: ObjectStore, tmp_path: Path) -> None:
    version, reused = publish(Registry(UnheardClaims(store), lease=3600), tmp_path / "1")

    assert (version.version, reused) == (1, False)


def test_a_number_that_no_reader_takes_is_not_given_out(store: ObjectStore, tmp_path: Path) -> None:
    store.put_new(paths.reservation("digits", 10**18 - 1), b"{}")

    with pytest.raises(FormatError, match=r"999999999999999999\.json takes the highest number"):
        publish(Registry(store), tmp_path / "1")


def test_an_occupied_number_whose_tombstone_fails_at_first_is_ended_all_the_same(
    store: ObjectStore, tmp_path: Path
) -> None:
    front = FailingTombstones(IntrudedUploads(store), failing=1)

    version, reused = publish(Registry(front, lease=_LEASE), tmp_path / "1")

    assert (version.version, reused) == (2, False)
    tombstone = outcome_of(store, 1)
    assert isinstance(tombstone, Tombstone) and tombstone.occupied
    assert store.get(_FOREIGN).data == b"foreign"
