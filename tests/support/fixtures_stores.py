"""The store that a test runs on: each kind in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_registry.storage import ObjectStore, open_store
from model_registry.storage.memory import MemoryStore
from tests.support.fixtures_s3 import Bucket


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty one."""
    return MemoryStore() if request.param == "memory" else open_store(_url(request, tmp_path))


@pytest.fixture(params=["local", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty one that other processes can open."""
    return _url(request, tmp_path)


def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "registry")
    bucket: Bucket = request.getfixturevalue("s3_bucket")
    return bucket.url
