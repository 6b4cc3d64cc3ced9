"""Publishing by many at once, by the dead and by the late, on every store."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from model_registry import paths
from model_registry.claims import Claim
from model_registry.errors import ConflictError, StorageError
from model_registry.payload import payload_files
from model_registry.registry import Registry
from model_registry.servable import ServableVersion, Variant
from model_registry.storage import ObjectStore
from model_registry.tombstone import Tombstone
from tests.support.drafts import make_draft, make_payload
from tests.support.publishers import (
    SlowStore,
    outcome_of,
    payload_keys,
    publish,
    renewals_of,
    store_without_renewals,
    wait_until,
)

_LEASE = 2.0


def test_many_publishers_get_consecutive_numbers(store: ObjectStore, tmp_path: Path) -> None:
    registry = Registry(store)
    count = 16

    with ThreadPoolExecutor(count) as pool:
        published = list(pool.map(lambda n: publish(registry, tmp_path / str(n), f"a{n}"), range(count)))

    assert sorted(version.version for version, _ in published) == list(range(1, count + 1))
    assert not any(reused for _, reused in published)
    assert [version.version for version in registry.versions("digits")] == list(range(count, 0, -1))
    assert all(registry.verify(version) == [] for version, _ in published)


def test_publishers_of_one_identity_get_one_version(store: ObjectStore, tmp_path: Path) -> None:
    registry = Registry(store, lease=_LEASE)
    barrier = threading.Barrier(6)

    def compete(number: int) -> tuple[ServableVersion, bool]:
        barrier.wait(30)
        return publish(registry, tmp_path / str(number), run=f"run-{number}")

    with ThreadPoolExecutor(6) as pool:
        published = list(pool.map(compete, range(6)))

    assert len({version.version for version, _ in published}) == 1
    assert sorted(reused for _, reused in published) == [False] + [True] * 5
    assert registry.versions("digits") == [published[0][0]]
    assert registry.verify(published[0][0]) == []
    assert len(payload_keys(store)) == 4


def test_forced_publishers_of_one_identity_get_a_version_each(store: ObjectStore, tmp_path: Path) -> None:
    registry = Registry(store, lease=_LEASE)

    with ThreadPoolExecutor(3) as pool:
        published = list(pool.map(lambda n: publish(registry, tmp_path / str(n), force=True), range(3)))

    assert len({version.version for version, _ in published}) == 3
    assert len(registry.versions("digits")) == 3


def _die(store: ObjectStore, number: int = 1) -> None:
    """Leaves what a publisher leaves that was killed in the middle of its upload."""
    store.put_new(paths.reservation("digits", number), b"{}")
    claim = Claim(number, "dead", make_draft(run="killed").run)
    store.put_new(paths.claim("digits", "a1"), claim.to_json())
    store.put_new(f"{paths.payload('digits', 'native', number)}variables/variables.index", b"half")


def test_a_dead_publisher_is_relieved(store: ObjectStore, tmp_path: Path) -> None:
    _die(store)

    version, reused = publish(Registry(store, lease=_LEASE), tmp_path / "payload")

    assert (version.version, reused) == (2, False)
    assert isinstance(outcome_of(store, 1), Tombstone)
    assert Registry(store).find("digits", "a1") == version


def test_one_of_many_relieves_a_dead_publisher(store: ObjectStore, tmp_path: Path) -> None:
    _die(store)
    registry = Registry(store, lease=_LEASE)

    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(lambda n: publish(registry, tmp_path / str(n)), range(4)))

    assert len({version.version for version, _ in published}) == 1
    assert sorted(reused for _, reused in published) == [False, True, True, True]
    assert len(registry.versions("digits")) == 1


def test_a_claim_on_a_number_that_was_given_up_is_dead_at_once(store: ObjectStore, tmp_path: Path) -> None:
    _die(store)
    store.put_new(paths.manifest("digits", 1), Tombstone("gc", "orphan", "2030-01-01T00:00:00+00:00").to_json())

    version, _ = publish(Registry(store, lease=3600), tmp_path / "payload")

    assert version.version == 2


def test_a_publisher_that_renews_its_claim_is_waited_for(store: ObjectStore, tmp_path: Path) -> None:
    slow = SlowStore(store)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(publish, Registry(slow, lease=_LEASE), tmp_path / "1")
        assert slow.uploading.wait(30)
        second = pool.submit(publish, Registry(store, lease=_LEASE), tmp_path / "2")
        wait_until(lambda: renewals_of(store) >= 2 * 6)  # two leases
        assert not second.done()
        slow.go_on.set()

        version, reused = first.result(60)
        assert (version.version, reused) == (1, False)
        assert second.result(60) == (version, True)


def test_a_publisher_that_comes_late_loses_and_takes_its_files_back(store: ObjectStore, tmp_path: Path) -> None:
    slow = SlowStore(store)
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(publish, Registry(slow, lease=_LEASE), tmp_path / "1")
        assert slow.uploading.wait(30)
        with store_without_renewals(slow):
            heir = pool.submit(publish, Registry(store, lease=_LEASE), tmp_path / "2")
            version, reused = heir.result(60)
        slow.go_on.set()

        assert (version.version, reused) == (2, False)
        assert late.result(60) == (version, True)
    assert not [key for key in payload_keys(store) if key.startswith(paths.payload("digits", "native", 1))]
    assert Registry(store).verify(version) == []


def test_a_late_publisher_without_an_heir_gets_a_conflict(store: ObjectStore, tmp_path: Path) -> None:
    slow = SlowStore(store)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(publish, Registry(slow, lease=_LEASE), tmp_path / "1")
        assert slow.uploading.wait(30)
        store.put_new(paths.manifest("digits", 1), Tombstone("gc", "orphan", "2030-01-01T00:00:00+00:00").to_json())
        slow.go_on.set()

        with pytest.raises(ConflictError, match="given up while it was uploaded: orphan"):
            late.result(60)
    assert payload_keys(store) == []
    assert Registry(store).versions("digits") == []


def test_a_failed_upload_leaves_no_version_and_publishing_again_works(store: ObjectStore, tmp_path: Path) -> None:
    registry = Registry(store)
    directory = make_payload(tmp_path / "1")
    draft = replace(make_draft(), variants=(Variant("native", payload_files(directory)),))
    (directory / "saved_model.pb").write_bytes(b"another graph")

    with pytest.raises(StorageError):
        registry.publish(draft, {"native": directory})

    assert registry.versions("digits") == []
    assert payload_keys(store) == []
    version, reused = publish(registry, tmp_path / "2")
    assert (version.version, reused) == (2, False)


def test_a_failed_forced_upload_leaves_the_version_there_was(store: ObjectStore, tmp_path: Path) -> None:
    registry = Registry(store)
    first, _ = publish(registry, tmp_path / "1")
    directory = make_payload(tmp_path / "2")
    draft = replace(make_draft(), variants=(Variant("native", payload_files(directory)),))
    (directory / "saved_model.pb").unlink()

    with pytest.raises(StorageError):
        registry.publish(draft, {"native": directory}, force=True)

    assert registry.find("digits", "a1") == first
    assert publish(registry, tmp_path / "3") == (first, True)


def test_every_variant_is_published(store: ObjectStore, tmp_path: Path) -> None:
    payloads = {name: make_payload(tmp_path / name) for name in ("native", "tensorrt-fp16-sm89")}

    version, _ = Registry(store).publish(make_draft(), payloads)

    assert [variant.name for variant in version.variants] == ["native", "tensorrt-fp16-sm89"]
    assert Registry(store).verify(version) == []
    assert len(payload_keys(store)) == 8
