"""What a model server takes for a version, and when it loads and unloads it, as TensorFlow Serving 2.17 does.

SLIPWAY_TF_SERVING=/path/to/tensorflow_model_server runs these rules against the real one.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures_model_server import StartServer
from tests.support.model_server_processes import RunningServer, until
from tests.support.served_models import answered_version, model_entry, write_config
from tests.support.tiny_models import TinyModels, held_load

pytestmark = pytest.mark.xdist_group("model_server")
AT_ONCE = {"max_num_load_retries": 0}


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "digits"
    path.mkdir(parents=True)
    return path


def _reaches(server: RunningServer, version: int, state: str, model: str = "digits") -> tuple[str, str]:
    """Waits for a version's state; returns it with the error."""
    until(lambda: server.states(model).get(version) == state, server, f"{model}:{version} is {state}")
    return server.statuses(model)[version]


def test_it_serves_the_highest_version_by_default(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path
) -> None:
    for version in (1, 2):
        tiny_models.write(base_path, version)

    server = model_server(model_name="digits", model_base_path=base_path)

    assert server.states("digits") == {2: "AVAILABLE"}
    assert answered_version(server, "digits") == 2
    assert "Successfully loaded servable version {name: digits version: 2}" in server.log_text


def test_a_higher_version_is_loaded_before_the_lower_one_goes(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path
) -> None:
    tiny_models.write(base_path, 1)
    server = model_server(model_name="digits", model_base_path=base_path)
    staged = tiny_models.write(base_path, 2, name="2.tmp")

    with held_load(staged):
        staged.rename(base_path / "2")
        _reaches(server, 2, "LOADING")
        assert server.states("digits")[1] == "AVAILABLE"
        assert answered_version(server, "digits") == 1

    assert _reaches(server, 1, "END") == ("END", "")
    assert answered_version(server, "digits") == 2


def test_any_integer_names_a_version_and_nothing_else_does(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path, tmp_path: Path
) -> None:
    tiny_models.write(base_path, 1)
    for name in ("2.tmp", ".tmp9", "v8"):
        tiny_models.write(base_path, 9, name=name)
    entry = f'config {{ name: "digits" base_path: "{base_path}" model_platform: "tensorflow" '
    config = write_config(tmp_path / "models.config", entry + "model_version_policy { all {} } }")
    server = model_server(config, **AT_ONCE)
    (base_path / "50").write_text("a file")
    (base_path / "60").mkdir()
    tiny_models.write(base_path, 7, name="007")

    _reaches(server, 7, "AVAILABLE")
    until(lambda: {50, 60} <= server.states("digits").keys(), server, "50 and 60 are taken for versions")
    for version in (50, 60):
        _, error = _reaches(server, version, "END")
        assert "Could not find SavedModel" in error
    assert server.states("digits").keys() == {1, 7, 50, 60}


def test_a_version_without_its_variables_becomes_available_and_answers_nothing(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path
) -> None:
    whole = tiny_models.write(base_path, 1)
    server = model_server(model_name="digits", model_base_path=base_path)
    broken = tiny_models.write_without_variables(base_path, 2)

    _reaches(server, 2, "AVAILABLE")
    _reaches(server, 1, "END")
    assert "Could not find variable" in str(answered_version(server, "digits"))
    shutil.copytree(whole / "variables", broken / "variables")
    # The next look at the disk is over once it has seen what came to be later.
    tiny_models.write(base_path, 3, name="later").rename(base_path / "1000")
    _reaches(server, 1000, "AVAILABLE")
    assert server.log_text.count("Successfully loaded servable version {name: digits version: 2}") == 1


def test_a_warmup_file_makes_a_version_without_variables_fail_until_they_are_there(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path
) -> None:
    whole = tiny_models.write(base_path, 1)
    server = model_server(
        model_name="digits", model_base_path=base_path, max_num_load_retries=1000, load_retry_interval_micros=200_000
    )
    staged = tiny_models.write_without_variables(base_path.parent / "staged", 2)
    tiny_models.add_warmup(staged)
    staged.rename(base_path / "2")

    until(lambda: "Could not find variable" in server.log_text, server, "the load of 2 fails")
    assert server.states("digits") == {2: "LOADING", 1: "AVAILABLE"}
    shutil.copytree(whole / "variables", base_path / "2" / ".variables")
    (base_path / "2" / ".variables").rename(base_path / "2" / "variables")
    _reaches(server, 2, "AVAILABLE")
    assert answered_version(server, "digits") == 2


def test_after_the_retries_only_a_higher_version_gets_through(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path
) -> None:
    whole = tiny_models.write(base_path, 1)
    server = model_server(
        model_name="digits", model_base_path=base_path, max_num_load_retries=2, load_retry_interval_micros=1000
    )
    broken = tiny_models.write_truncated(base_path, 2)

    _, error = _reaches(server, 2, "END")
    assert "Can't parse" in error
    assert server.log_text.count("Loading servable: {name: digits version: 2} failed") == 3
    assert answered_version(server, "digits") == 1
    shutil.copyfile(whole / "saved_model.pb", broken / "saved_model.pb")
    tiny_models.write(base_path, 3)
    _reaches(server, 3, "AVAILABLE")
    assert server.states("digits")[2] == "END"


def _one_failing_and_one_good(
    model_server: StartServer, tiny_models: TinyModels, tmp_path: Path, **flags: int
) -> RunningServer:
    """A server whose model `broken` is being retried while a version 2 of `whole` comes."""
    paths = {name: tmp_path / "models" / name for name in ("broken", "whole")}
    for path in paths.values():
        tiny_models.write(path, 1)
    config = write_config(tmp_path / "models.config", *(model_entry(name, path) for name, path in paths.items()))
    server = model_server(config, max_num_load_retries=1, **flags)
    tiny_models.write_truncated(paths["broken"], 2)
    until(lambda: "Loading servable: {name: broken version: 2} failed" in server.log_text, server, "the load fails")
    tiny_models.write(paths["whole"], 2)
    _reaches(server, 2, "AVAILABLE", "whole")
    return server


def test_a_failing_load_holds_up_all_others(model_server: StartServer, tiny_models: TinyModels, tmp_path: Path) -> None:
    server = _one_failing_and_one_good(model_server, tiny_models, tmp_path, load_retry_interval_micros=3_000_000)

    given_up = server.log_text.index("Servable {name: broken version: 2} cannot be loaded")
    assert given_up < server.log_text.index("Successfully loaded servable version {name: whole version: 2}")


def test_with_load_threads_a_failing_load_holds_up_nobody(
    model_server: StartServer, tiny_models: TinyModels, tmp_path: Path
) -> None:
    server = _one_failing_and_one_good(
        model_server, tiny_models, tmp_path, load_retry_interval_micros=600_000_000, num_load_threads=2
    )

    assert server.states("broken") == {2: "LOADING", 1: "AVAILABLE"}


def test_removing_the_only_version_unloads_it(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path
) -> None:
    shutil.rmtree(base_path)
    version = tiny_models.write(base_path, 1)
    server = model_server(model_name="digits", model_base_path=base_path)

    version.rename(base_path / "gone")

    assert _reaches(server, 1, "END") == ("END", "")
    assert "Servable not found" in str(answered_version(server, "digits"))


def test_overwriting_the_files_of_a_loaded_version_does_nothing(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path, tmp_path: Path
) -> None:
    version = tiny_models.write(base_path, 1)
    config = write_config(tmp_path / "models.config", model_entry("digits", base_path, [1]))
    server = model_server(config)
    other = tiny_models.write(tmp_path, 5)

    shutil.copyfile(other / "saved_model.pb", version / "saved_model.pb")
    tiny_models.write(base_path, 2)
    write_config(config, model_entry("digits", base_path, [1, 2]))

    _reaches(server, 2, "AVAILABLE")
    status, answer = server.post("/v1/models/digits/versions/1:predict", {"inputs": [[1.0, 1.0]]})
    assert (status, answer["outputs"]["version"]) == (200, [1])


def test_a_request_that_has_begun_is_answered_though_its_version_goes(
    model_server: StartServer, tiny_models: TinyModels, base_path: Path
) -> None:
    # Read from its source, not measured.
    tiny_models.write(base_path, 1)
    server = model_server(model_name="digits", model_base_path=base_path)
    answers: list[tuple[int, Any]] = []
    turns = 1_200_000

    def ask() -> None:
        path = "/v1/models/digits/versions/1:predict"
        answers.append(server.post(path, {"signature_name": "spin", "instances": [turns]}))

    asking = threading.Thread(target=ask)
    asking.start()
    tiny_models.write(base_path, 2)
    _reaches(server, 1, "UNLOADING")
    assert not answers, "the request was answered before the version went: let it turn longer"
    asking.join(120)

    assert answers == [(200, {"predictions": [turns]})]
    _reaches(server, 1, "END")
