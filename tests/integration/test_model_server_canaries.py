"""Versions that are worse than others, which rollouts are tested with: slow ones, and ones that refuse some inputs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.model_server_launchers import Launcher
from tests.support.model_server_processes import RunningServer, until
from tests.support.served_models import model_entry, write_config
from tests.support.tiny_models import TinyModels

pytestmark = pytest.mark.xdist_group("model_server")


def test_a_version_can_take_its_time_and_refuse_a_share_of_all_inputs(
    model_server_launcher: Launcher, tiny_models: TinyModels, tmp_path: Path
) -> None:
    for version, changes in enumerate(({}, {"delay_turns": 20_000}, {"failing_share": 0.3}, {"failing_share": 1.0}), 1):
        tiny_models.write(tmp_path / "digits", version, **changes)
    config = write_config(
        tmp_path / "models.config", model_entry("digits", tmp_path / "digits", [1, 2, 3, 4], {"stable": 1})
    )
    flags = {"model_config_file": config, "allow_version_labels_for_unavailable_models": True}
    inputs = [[number / 7, 1.0] for number in range(200)]
    with RunningServer(model_server_launcher, tmp_path / "log", flags).start().wait_ready() as running:
        until(lambda: [*running.states("digits").values()] == ["AVAILABLE"] * 4, running, "all are loaded")

        def refused(version: int) -> list[int]:
            path = f"/v1/models/digits/versions/{version}:predict"
            answers = [running.post(path, {"instances": [row]}) for row in inputs]
            assert all(
                status == 200 or "an input that this version refuses" in body["error"] for status, body in answers
            )
            return [index for index, (status, _) in enumerate(answers) if status != 200]

        def seconds(version: int) -> float:
            begin = time.monotonic()
            path = f"/v1/models/digits/versions/{version}:predict"
            assert running.post(path, {"instances": [inputs[0]]})[1]["predictions"][0]["version"] == version
            return time.monotonic() - begin

        assert refused(1) == []
        assert 30 <= len(refused(3)) <= 90  # of 200, six standard deviations around 60
        assert refused(3) == refused(3)
        assert len(refused(4)) == 200
        assert min(seconds(2) for _ in range(3)) > 2 * min(seconds(1) for _ in range(3))
