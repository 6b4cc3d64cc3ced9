"""Fixtures of sync agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_registry.registry import Registry
from tests.support.sync_bench import SyncBench
from tests.support.tiny_models import TinyModels


@pytest.fixture
def sync_bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SyncBench]:
    """A registry in a directory, and agents that follow it; what it publishes can be loaded where a server is."""
    tiny: TinyModels | None = None
    if "model_server" in request.fixturenames:
        tiny = request.getfixturevalue("tiny_models")
    folder = tmp_path / "bench"
    folder.mkdir()
    bench = SyncBench(folder, Registry.open(str(folder / "registry")), tiny)
    try:
        yield bench
    finally:
        bench.close()
