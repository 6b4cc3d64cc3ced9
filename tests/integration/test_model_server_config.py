"""What a model server makes of models.config, at its start and on each poll, as TensorFlow Serving 2.17 does.

SLIPWAY_TF_SERVING=/path/to/tensorflow_model_server runs these rules against the real one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.fixtures_model_server import StartServer
from tests.support.model_server_processes import RunningServer, until
from tests.support.served_models import answered_version, model_entry, write_config
from tests.support.tiny_models import TinyModels

pytestmark = pytest.mark.xdist_group("model_server")
AT_ONCE = {"max_num_load_retries": 0}
REFUSED = "which is not currently available for inference"
_EXIT = 255


@dataclass(frozen=True)
class Site:
    """A directory with a models.config and the versions 1 to 4 of `digits`, and of `other`."""

    tmp_path: Path
    tiny: TinyModels

    @property
    def config(self) -> Path:
        return self.tmp_path / "models.config"

    def base_path(self, model: str = "digits") -> Path:
        return self.tmp_path / "models" / model

    def entry(self, *versions: int, model: str = "digits", **labels: int) -> str:
        return model_entry(model, self.base_path(model), versions, labels)

    def write(self, *entries: str) -> Path:
        return write_config(self.config, *entries)


@pytest.fixture
def site(tmp_path: Path, tiny_models: TinyModels) -> Site:
    site = Site(tmp_path, tiny_models)
    for model in ("digits", "other"):
        for version in (1, 2, 3):
            tiny_models.write(site.base_path(model), version)
    return site


def _serves(server: RunningServer, *versions: int, model: str = "digits") -> None:
    """Waits until just these are AVAILABLE."""

    def found() -> bool:
        return {version for version, state in server.states(model).items() if state == "AVAILABLE"} == {*versions}

    until(found, server, f"{model} has {versions}")


def _answers(server: RunningServer, label: str, version: int) -> None:
    until(lambda: answered_version(server, "digits", label) == version, server, f"{label} answers with {version}")


def _polls(server: RunningServer, said: str, times: int = 2) -> None:
    """Waits until some more polls have said something."""
    before = server.log_text.count(said)
    until(lambda: server.log_text.count(said) >= before + times, server, f"it says so {times} times: {said}")


def test_a_broken_config_is_logged_and_the_old_one_stays(model_server: StartServer, site: Site) -> None:
    server = model_server(site.write(site.entry(1, stable=1)))

    site.write("config { name: digits base_path: }")

    _polls(server, "Failed to read ModelServerConfig file")
    assert answered_version(server, "digits", "stable") == 1
    site.write(site.entry(1, 2, stable=1))
    _serves(server, 1, 2)


def test_a_model_that_is_left_out_is_unloaded(model_server: StartServer, site: Site) -> None:
    server = model_server(site.write(site.entry(1), site.entry(1, model="other")))

    site.write(site.entry(1))

    _serves(server, model="other")
    assert server.states("other") == {1: "END"}
    assert "Servable not found" in str(answered_version(server, "other"))
    assert answered_version(server, "digits") == 1


def test_labels_in_the_first_config_end_the_process(model_server: StartServer, site: Site) -> None:
    server = model_server(
        site.write(site.entry(1, stable=1)), wait=False, allow_version_labels_for_unavailable_models=False
    )

    assert server.wait_end() == _EXIT
    assert REFUSED in server.log_text


def test_labels_in_the_first_config_are_kept_with_the_flag_for_them(model_server: StartServer, site: Site) -> None:
    server = model_server(site.write(site.entry(1, 2, stable=1, canary=2)))

    _answers(server, "stable", 1)
    _answers(server, "canary", 2)


def test_one_label_that_is_too_early_rejects_the_whole_file_on_every_poll(
    model_server: StartServer, site: Site
) -> None:
    server = model_server(site.write(site.entry(1, stable=1), site.entry(1, model="other", stable=1)))
    _answers(server, "stable", 1)

    site.write(site.entry(1, 3, stable=3), site.entry(1, 2, model="other", stable=1))

    _polls(server, REFUSED, times=3)
    assert server.states("digits") == {1: "AVAILABLE"}
    assert server.states("other") == {1: "AVAILABLE"}
    assert answered_version(server, "digits", "stable") == 1


def test_a_version_added_first_and_labelled_later_is_taken_up(model_server: StartServer, site: Site) -> None:
    server = model_server(site.write(site.entry(1, stable=1)))

    site.write(site.entry(1, 3, stable=1))
    _serves(server, 1, 3)
    assert answered_version(server, "digits", "stable") == 1
    site.write(site.entry(1, 3, stable=3))
    _answers(server, "stable", 3)
    site.write(site.entry(3, stable=3))
    _serves(server, 3)
    assert server.states("digits") == {3: "AVAILABLE", 1: "END"}


def test_labels_swap_in_one_file(model_server: StartServer, site: Site) -> None:
    server = model_server(site.write(site.entry(1, 2, stable=1, canary=2)))
    _answers(server, "canary", 2)

    site.write(site.entry(1, 2, stable=2, canary=1))

    _answers(server, "stable", 2)
    _answers(server, "canary", 1)


def test_the_flag_for_early_labels_helps_new_labels_and_no_move(model_server: StartServer, site: Site) -> None:
    server = model_server(site.write(site.entry(1, stable=1)))
    _answers(server, "stable", 1)

    site.write(site.entry(1, stable=1, canary=3))
    until(lambda: "Specific(digits, 3)" in str(answered_version(server, "digits", "canary")), server, "canary is 3")
    site.write(site.entry(1, stable=3, canary=3))

    _polls(server, REFUSED)
    assert answered_version(server, "digits", "stable") == 1


def test_a_reload_by_grpc_is_undone_by_the_file(model_server: StartServer, site: Site) -> None:
    server = model_server(site.write(site.entry(1)))

    def loaded_by_grpc() -> bool:
        _reload(server, site.base_path(), 2)  # again and again: the file may undo it before the disk is looked at
        return server.states("digits").get(2) == "AVAILABLE"

    until(loaded_by_grpc, server, "2 is loaded")
    _serves(server, 1)
    assert server.states("digits")[2] == "END"


def _reload(server: RunningServer, base_path: Path, version: int) -> None:
    import grpc
    from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

    request = model_management_pb2.ReloadConfigRequest()
    model = request.config.model_config_list.config.add(
        name="digits", base_path=str(base_path), model_platform="tensorflow"
    )
    model.model_version_policy.specific.versions.append(version)
    with grpc.insecure_channel(server.target) as channel:
        answer = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=30)
    assert answer.status.error_code == 0


def test_a_version_that_cannot_be_loaded_ends_the_process_at_its_start(model_server: StartServer, site: Site) -> None:
    site.tiny.write_truncated(site.base_path(), 4)

    server = model_server(site.write(site.entry(1, model="other"), site.entry(4)), wait=False, **AT_ONCE)

    assert server.wait_end() == _EXIT
    assert "did not become available" in server.log_text


def test_a_config_that_is_no_config_ends_the_process_at_its_start(model_server: StartServer, site: Site) -> None:
    # Read from its source, not measured.
    server = model_server(site.write("config { nme: 'digits' }"), wait=False)

    assert server.wait_end() == _EXIT


def test_a_failed_version_in_a_running_server_harms_nobody_and_stays_listed(
    model_server: StartServer, site: Site
) -> None:
    server = model_server(site.write(site.entry(1, stable=1), site.entry(1, model="other")), **AT_ONCE)
    site.tiny.write_truncated(site.base_path(), 4)

    site.write(site.entry(1, 2, 4, stable=1), site.entry(1, model="other"))

    _serves(server, 1, 2)
    until(lambda: server.states("digits").get(4) == "END", server, "4 fails")
    assert "Can't parse" in server.statuses("digits")[4][1]
    assert answered_version(server, "digits", "stable") == 1
    assert answered_version(server, "other") == 1
    assert server.is_running


def test_a_failed_version_is_tried_again_once_it_was_out_of_the_file_for_a_poll(
    model_server: StartServer, site: Site
) -> None:
    server = model_server(site.write(site.entry(1, stable=1)), **AT_ONCE)
    broken = site.tiny.write_truncated(site.base_path(), 4)
    site.write(site.entry(1, 4, stable=1))
    until(lambda: server.states("digits").get(4) == "END", server, "4 fails")

    whole = site.tiny.write(site.tmp_path / "whole", 4)
    shutil.copyfile(whole / "saved_model.pb", broken / "saved_model.pb")
    site.write(site.entry(1, 3, 4, stable=1))  # its files alone do not bring it back: 3 comes, 4 does not
    _serves(server, 1, 3)
    assert server.states("digits")[4] == "END"
    site.write(site.entry(1, 2, stable=1))
    _serves(server, 1, 2)
    site.write(site.entry(1, 4, stable=1))

    _serves(server, 1, 4)


def test_a_label_whose_version_was_dropped_answers_not_found(model_server: StartServer, site: Site) -> None:
    server = model_server(site.write(site.entry(1, 2, stable=1)))
    _answers(server, "stable", 1)

    site.write(site.entry(2, stable=1))

    _serves(server, 2)
    status, answer = server.post("/v1/models/digits/labels/stable:predict", {"inputs": [[1.0, 1.0]]})
    assert (status, answer) == (404, {"error": "Servable not found for request: Specific(digits, 1)"})


def test_status_under_a_label_lists_every_version_and_metadata_tells_the_labels_own(
    model_server: StartServer, site: Site
) -> None:
    server = model_server(site.write(site.entry(1, 2, stable=1)))
    _answers(server, "stable", 1)

    _, status = server.get("/v1/models/digits/labels/stable")
    _, metadata = server.get("/v1/models/digits/labels/stable/metadata")

    listed: Mapping[str, list[dict[str, str]]] = json.loads(status)
    assert {item["version"] for item in listed["model_version_status"]} == {"1", "2"}
    assert json.loads(metadata)["model_spec"] == {"name": "digits", "signature_name": "", "version": "1"}


def test_a_new_model_without_a_version_holds_up_every_later_file(model_server: StartServer, site: Site) -> None:
    # Read from its source, not measured.
    server = model_server(site.write(site.entry(1)))
    (site.base_path("empty")).mkdir()

    site.write(site.entry(1), site.entry(1, model="empty"))
    _polls(server, "No versions of servable empty found")
    site.write(site.entry(1, 2))
    _polls(server, "No versions of servable empty found")
    assert server.states("digits") == {1: "AVAILABLE"}
    site.tiny.write(site.base_path("empty"), 1)

    _serves(server, 1, 2)


def test_killed_and_started_again_it_serves_what_the_file_says(model_server: StartServer, site: Site) -> None:
    server = model_server(site.write(site.entry(1, 2, stable=1)))
    before = server.pid
    server.kill()
    site.write(site.entry(2, 3, stable=2))

    server.restart()

    assert server.pid != before
    _answers(server, "stable", 2)
    _serves(server, 2, 3)
