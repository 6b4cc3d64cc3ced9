"""What a model server makes of warm-up files and batching parameters, as TensorFlow Serving 2.17 does.

SLIPWAY_TF_SERVING=/path/to/tensorflow_model_server runs these rules against the real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.model_server_launchers import Launcher
from tests.support.model_server_processes import RunningServer, until
from tests.support.served_models import answered_version, model_entry, write_config
from tests.support.tiny_models import TinyModels

pytestmark = pytest.mark.xdist_group("model_server")
PASS = ("warm", "other_model", "empty_log", "empty_file")
FAIL = ("wrong_input", "wrong_signature", "wrong_shape", "cut", "no_log", "too_many")


@pytest.fixture(scope="module")
def warmed(
    model_server_launcher: Launcher, tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server with a model for each kind of file: version 1 is good, and version 2 came later, with the file."""
    directory = tmp_path_factory.mktemp("warmed")
    for kind in PASS + FAIL:
        tiny_models.write(directory / kind, 1)
    config = write_config(directory / "models.config", *(model_entry(kind, directory / kind) for kind in PASS + FAIL))
    flags = {"model_config_file": config, "max_num_load_retries": 0}
    with RunningServer(model_server_launcher, directory / "log", flags).start().wait_ready() as server:
        for kind in PASS + FAIL:
            version = tiny_models.write(directory / "staged", 2, name=kind)
            tiny_models.add_warmup(version, kind)
            version.rename(directory / kind / "2")
        yield server


@pytest.mark.parametrize("kind", PASS)
def test_what_says_nothing_wrong_of_the_model_passes(kind: str, warmed: RunningServer) -> None:
    until(lambda: warmed.states(kind).get(2) == "AVAILABLE", warmed, f"{kind} is loaded")
    assert answered_version(warmed, kind) == 2


@pytest.mark.parametrize("kind", FAIL)
def test_a_file_that_cannot_be_replayed_fails_the_load_and_the_old_version_stays(
    kind: str, warmed: RunningServer
) -> None:
    until(lambda: warmed.states(kind).get(2) == "END", warmed, f"{kind} fails")
    assert warmed.statuses(kind)[2][1]
    assert warmed.states(kind)[1] == "AVAILABLE"
    assert answered_version(warmed, kind) == 1


def test_the_log_tells_how_many_records_were_read(warmed: RunningServer) -> None:
    until(lambda: "Number of warmup records read: 3" in warmed.log_text, warmed, "it says so")


def test_a_heavy_file_only_takes_its_time(
    model_server_launcher: Launcher, tiny_models: TinyModels, tmp_path: Path
) -> None:
    tiny_models.write(tmp_path / "digits", 1)
    flags = {"model_name": "digits", "model_base_path": tmp_path / "digits"}
    with RunningServer(model_server_launcher, tmp_path / "log", flags).start().wait_ready() as server:
        version = tiny_models.write(tmp_path / "staged", 2)
        tiny_models.add_warmup(version, "spinning")
        version.rename(tmp_path / "digits" / "2")
        until(lambda: server.states("digits").get(2) == "LOADING", server, "2 is loading")
        assert answered_version(server, "digits") == 1
        until(lambda: server.states("digits").get(2) == "AVAILABLE", server, "2 is loaded")
