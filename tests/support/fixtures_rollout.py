"""Fixtures of whole rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.model_server_launchers import Launcher
from tests.support.rollout_bench import RolloutBench
from tests.support.rollout_start import run_rollout_bench
from tests.support.tiny_models import TinyModels


@pytest.fixture(scope="module")
def shared_rollout_bench(
    envoy_program: Path,
    prometheus_program: Path,
    model_server_launcher: Launcher,
    tiny_models: TinyModels,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RolloutBench]:
    """All that takes part in a rollout."""
    assert envoy_program.exists() and prometheus_program.exists()
    with run_rollout_bench(tmp_path_factory.mktemp("rollout"), model_server_launcher, tiny_models) as bench:
        yield bench


@pytest.fixture
def rollout_bench(shared_rollout_bench: RolloutBench) -> RolloutBench:
    """The same, where nothing is under way and canary names nothing, whatever a test before has left."""
    shared_rollout_bench.settle()
    return shared_rollout_bench
