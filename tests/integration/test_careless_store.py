"""A server that ignores the conditions of a write: two writers could lose each other's versions on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest

from flows.cli import main
from model_registry.errors import StorageError
from model_registry.registry import Registry
from model_registry.storage import ObjectStore, open_store
from model_registry.storage.probe import check_conditional_writes
from tests.support.fixtures_s3 import Bucket
from tests.support.publishers import publish

REASON = "ignores If-None-Match"


@pytest.mark.parametrize("check", [lambda store: store.check(), check_conditional_writes], ids=["check", "probe"])
def test_a_store_that_ignores_conditions_is_refused(
    careless_bucket: Bucket, check: Callable[[ObjectStore], None]
) -> None:
    store = open_store(careless_bucket.url)

    with pytest.raises(StorageError, match=REASON) as caught:
        check(store)

    assert not caught.value.transient
    assert "use a store with conditional writes" in (caught.value.hint or "")
    assert careless_bucket.url in caught.value.message
    assert list(store.list("")) == []
    bucket = careless_bucket.server.log.parent / "buckets" / careless_bucket.name
    assert not [path for path in bucket.rglob("*") if path.is_file()]


def test_a_store_that_ignores_conditions_may_be_read(careless_bucket: Bucket) -> None:
    open_store(careless_bucket.url).check(writing=False)


def test_the_doctor_refuses_a_store_that_ignores_conditions(careless_bucket: Bucket) -> None:
    result = click.testing.CliRunner().invoke(main, ["doctor", "--registry", careless_bucket.url, "--json"])

    assert result.exit_code == 1
    found = {item["check"]: item for item in json.loads(result.stdout)["checks"]}["registry"]
    assert found["verdict"] == "fail"
    assert REASON in found["found"]
    assert "use a store with conditional writes" in found["hint"]
    assert list(open_store(careless_bucket.url).list("")) == []


def test_the_first_publish_refuses_a_store_that_ignores_conditions(careless_bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=REASON):
        publish(Registry(open_store(careless_bucket.url)), tmp_path / "payload")

    assert list(open_store(careless_bucket.url).list("")) == []


def test_packaging_refuses_a_store_that_ignores_conditions_before_any_work(
    careless_bucket: Bucket, models: Path
) -> None:
    source = str(models / "half.keras")
    result = click.testing.CliRunner().invoke(main, ["package", source, "--registry", careless_bucket.url, "--json"])

    assert result.exit_code == 1
    assert REASON in json.loads(result.stdout)["error"]["message"]
    assert list(open_store(careless_bucket.url).list("")) == []
