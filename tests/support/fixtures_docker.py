"""Fixtures of the Docker engine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.docker_engine import DockerEngine, obstacle, run_docker_engine


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """A running Docker engine that has TensorFlow Serving's image; skips where none can be started, fails under CI."""
    if reason := obstacle():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with run_docker_engine() as engine:
        yield engine
