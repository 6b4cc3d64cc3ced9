"""A candidate in a server that somebody else runs."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_registry.errors import InvalidInputError
from model_registry.servable import Check
from model_registry.serving.server_status import ServerStatus
from model_registry.spec import PackageSpec
from tasks.model_process.replay_messages import ReplayPlan
from tasks.server_check import Subject, check_in_server, require_server
from tests.support.fixtures_model_server import StartServer
from tests.support.model_server_processes import RunningServer
from tests.support.s3_server import free_port

pytestmark = pytest.mark.xdist_group("model_server")

_WITHIN = 30.0

SIGNATURES = {"classify": {"method": "classify", "scores": "y", "classes": ["up", "down"]}}


@pytest.fixture(scope="module")
def subject(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    from tests.support import served_candidates

    spec = {"signatures": SIGNATURES}
    return served_candidates.subject(models / "tiny.keras", tmp_path_factory.mktemp("candidate"), spec)


@pytest.fixture(scope="module")
def sampled(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    from tests.support import served_candidates

    spec = {"samples": str(models / "samples.npz")}
    return served_candidates.subject(models / "tiny.keras", tmp_path_factory.mktemp("sampled"), spec)


@pytest.fixture
def server(model_server: StartServer, tmp_path: Path) -> RunningServer:
    """A server without models, which polls no file."""
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}\n")
    return model_server(model_config_file=config)


def check(subject: Subject, address: str, workspace: Path, **keys: Any) -> dict[str, Check]:
    spec = PackageSpec.parse({"model": "tiny", "server": address, **keys})
    workspace.mkdir(exist_ok=True)
    return {made.check: made for made in check_in_server(subject, spec, workspace)[0]}


def assert_left_alone(server: RunningServer) -> None:
    """It unloads in its own time."""
    deadline = time.monotonic() + _WITHIN
    while {found.state for found in ServerStatus(server.url).versions("tiny")} != {"END"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_candidate_is_given_to_a_running_server_and_taken_back(
    subject: Subject, server: RunningServer, tmp_path: Path
) -> None:
    checks = check(subject, f"127.0.0.1:{server.port}", tmp_path / "serve")

    assert all(made.passed for made in checks.values()), checks
    assert list(checks) == [
        "server/load",
        "server/grpc/classify/classes",
        "server/grpc/classify/scores",
        "server/grpc/serving_default/y",
        "server/latency",
        "server/latency/first",
    ]
    assert "its log and its REST port are not known here" in checks["server/load"].detail
    assert_left_alone(server)


def test_answers_that_are_not_the_models_fail_the_check(
    sampled: Subject, server: RunningServer, tmp_path: Path
) -> None:
    """Reference answers that changed places stand for a server that computes something else."""
    import tensorflow as tf

    from tasks.model_process import replaying
    from tasks.model_process.cases import ANSWERS

    cases = tmp_path / "cases"
    shutil.copytree(sampled.cases, cases)
    answers = list(tf.data.TFRecordDataset(str(cases / ANSWERS)).as_numpy_iterator())
    answers[-1], answers[-2] = answers[-2], answers[-1]
    with tf.io.TFRecordWriter(str(cases / ANSWERS)) as writer:
        for data in answers:
            writer.write(data)

    base_path = tmp_path / "served"
    base_path.mkdir()
    (base_path / "3").symlink_to(sampled.directory)
    plan = ReplayPlan(
        grpc=f"127.0.0.1:{server.port}",
        rest=server.url,
        base_path=str(base_path),
        model="tiny",
        version=3,
        candidate=str(sampled.directory),
        cases=str(cases),
        answers=sampled.answers,
        signatures=sampled.signatures,
        tolerance=sampled.tolerance,
        variant="native",
        seconds=60,
    )

    load, replay = (work() for _, work in replaying.stages(lambda _kind: plan))

    assert load.problem == ""
    assert [made.check for made in replay.checks] == ["server/grpc/serving_default/y", "server/rest/serving_default/y"]
    for made in replay.checks:
        assert not made.passed
        assert isinstance(made.measured, dict)
        assert made.measured["max_absolute_error"] > 1e-3


def test_a_candidate_that_does_not_load_is_told_in_the_servers_words(
    subject: Subject, model_server: StartServer, tmp_path: Path
) -> None:
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}\n")
    server = model_server(model_config_file=config, max_num_load_retries=0)
    broken = tmp_path / "broken"
    shutil.copytree(subject.directory, broken)
    (broken / "saved_model.pb").write_bytes(b"no graph")

    checks = check(replace(subject, directory=broken), f"127.0.0.1:{server.port}", tmp_path / "serve")

    (load,) = checks.values()
    assert (load.check, load.measured, load.passed) == ("server/load", "not AVAILABLE", False)
    assert_left_alone(server)


def test_an_address_where_no_model_server_answers_is_refused_before_any_work() -> None:
    spec = PackageSpec.parse({"model": "tiny", "server": f"127.0.0.1:{free_port()}"})

    with pytest.raises(InvalidInputError, match="no TensorFlow Serving answers there"):
        require_server(spec)
