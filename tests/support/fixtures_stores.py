"""The store that a test of the registry runs on: each kind in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_registry.storage import ObjectStore, open_store
from model_registry.storage.memory import MemoryStore
from tests.support.fixtures_s3 import Bucket


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty one."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return open_store(str(tmp_path / "registry"))
    bucket: Bucket = request.getfixturevalue("s3_bucket")
    return open_store(bucket.url)
