"""A candidate in a server that somebody else runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from model_registry.errors import InvalidInputError
from model_registry.servable import Check
from model_registry.serving.server_status import ServerStatus
from model_registry.spec import PackageSpec
from tasks import running_server
from tasks.model_process.replay_messages import ReplayPlan
from tasks.server_check import Subject, check_in_server, require_server
from tests.support.fixtures_model_server import StartServer
from tests.support.model_server_processes import RunningServer, until
from tests.support.ports import free_port

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


def plan_of(subject: Subject, server: RunningServer, base_path: Path, version: int = 3) -> ReplayPlan:
    """Its directory of versions is made if it is not there."""
    base_path.mkdir(exist_ok=True)
    if not (base_path / str(version)).is_symlink():
        (base_path / str(version)).symlink_to(subject.directory)
    return ReplayPlan(
        grpc=server.target,
        rest=None,
        base_path=str(base_path),
        model="tiny",
        version=version,
        candidate=str(subject.directory),
        cases=str(subject.cases),
        answers=subject.answers,
        signatures=subject.signatures,
        tolerance=subject.tolerance,
        variant="native",
        seconds=60,
    )


def stages(plan: ReplayPlan) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """To load, and to replay."""
    from tasks.model_process import replaying

    load, replay = (work for _, work in replaying.stages(lambda _kind: plan))
    return load, replay


def give_another_model(server: RunningServer, subject: Subject, base_path: Path) -> None:
    """What somebody else would do: a config of its own."""
    from tasks.model_process import replay_loading

    plan = replace(plan_of(subject, server, base_path, 1), model="another")
    assert replay_loading.load(plan, time.monotonic() + _WITHIN).problem == ""


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

    plan = replace(plan_of(sampled, server, tmp_path / "served"), rest=server.url, cases=str(cases))

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


def test_two_checks_at_once_take_turns(subject: Subject, server: RunningServer, tmp_path: Path) -> None:
    def turn(name: str) -> dict[str, Check]:
        return check(subject, server.target, tmp_path / name, timeouts={"validate": 60})

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(turn, ["one", "other"]))

    for checks in both:
        assert all(made.passed for made in checks.values()), checks


def test_a_check_does_not_wait_for_another_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    address = "somewhere:8500"

    with running_server.reserved(address, 0), running_server.reserved("elsewhere:8500", 0):
        late = running_server.reserved(address, 0.1)
        with pytest.raises(InvalidInputError, match="another check has been using the server at somewhere:8500"), late:
            pass
    with running_server.reserved(address, 0):
        pass


@pytest.mark.parametrize("begun", [False, True], ids=["before the load", "after it"])
def test_a_server_that_is_stopped_says_nothing_of_the_candidate(
    subject: Subject, server: RunningServer, tmp_path: Path, begun: bool
) -> None:
    load, replay = stages(plan_of(subject, server, tmp_path / "served"))
    if begun:
        assert load().problem == ""

    server.kill()

    with pytest.raises(InvalidInputError, match="went away, or somebody else uses it: UNAVAILABLE") as caught:
        (replay if begun else load)()
    assert "nothing of the candidate" in str(caught.value.hint)


def test_a_server_that_takes_no_requests_for_a_moment_is_judged_only_where_it_is_the_candidates_own(
    subject: Subject, server: RunningServer, tmp_path: Path
) -> None:
    """As one does whose batching queue others have filled, and which has the version all the while."""
    from tasks.model_process.replay_calls import UnavailableError
    from tasks.model_process.replaying import _Replay

    plan, full = plan_of(subject, server, tmp_path / "served"), UnavailableError("UNAVAILABLE: the queue is full")

    with pytest.raises(InvalidInputError, match="somebody else uses it: UNAVAILABLE: the queue is full"):
        _Replay(plan, time.monotonic())._unanswered("server/grpc/classify", full)
    made = _Replay(replace(plan, base_path=None), time.monotonic())._unanswered("server/grpc/classify", full)
    assert (made.passed, made.detail) == (False, "UNAVAILABLE: the queue is full")


def test_a_server_that_is_told_of_other_models_says_nothing_of_the_candidate(
    subject: Subject, server: RunningServer, tmp_path: Path
) -> None:
    load, replay = stages(plan_of(subject, server, tmp_path / "served"))
    assert load().problem == ""

    give_another_model(server, subject, tmp_path / "another")
    assert_left_alone(server)

    with pytest.raises(InvalidInputError, match="version 3 was AVAILABLE, and is END"):
        replay()


def test_the_server_has_unloaded_the_candidate_when_the_check_is_over(
    subject: Subject, server: RunningServer, tmp_path: Path
) -> None:
    """The next check, of a model of the same name, would be told that its own has ended."""
    with running_server.RunningServer(server.target, "tiny", subject.directory, tmp_path) as given:
        load, _ = stages(plan_of(subject, server, given.base_path, given.version))
        assert load().problem == ""

    assert server.states("tiny") == {given.version: "END"}


def test_a_config_that_somebody_else_put_there_stays(
    subject: Subject, server: RunningServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_server.RunningServer(server.target, "tiny", subject.directory, tmp_path) as given:
        load, _ = stages(plan_of(subject, server, given.base_path, given.version))
        assert load().problem == ""
        give_another_model(server, subject, tmp_path / "another")
        assert_left_alone(server)

    assert server.states("another") == {1: "AVAILABLE"}
    assert "its config is left as it is" in caplog.text


def test_a_server_that_is_busy_with_another_config_says_nothing_of_the_candidate(
    subject: Subject, server: RunningServer, tmp_path: Path
) -> None:
    """It waits for a version of a model that has none."""
    from tasks.model_process import replay_loading

    empty = tmp_path / "empty"
    empty.mkdir()
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="empty", base_path=str(empty), model_platform="tensorflow")
    plan = replace(plan_of(subject, server, tmp_path / "served"), seconds=1)

    with grpc.insecure_channel(server.target) as channel:
        reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest.future(request)
        until(lambda: "(Re-)adding model: empty" in server.log_text, server, "it takes the other config")
        with pytest.raises(InvalidInputError, match="did not begin to load within 1 s"):
            replay_loading.load(plan, time.monotonic() + 1)
        reload.cancel()


def test_latency_ends_with_the_time_and_keeps_what_was_measured(
    subject: Subject, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.model_process import replaying

    monkeypatch.setattr(replaying, "_FEWEST_CALLS", 1 << 40)  # as slow a model as there can be
    load, replay = stages(replace(plan_of(subject, server, tmp_path / "served"), seconds=6))
    assert load().problem == ""

    checks = {made.check: made for made in replay().checks}

    assert all(made.passed for made in checks.values()), checks
    latency = checks["server/latency"]
    assert latency.threshold == "recorded"
    assert list(latency.measured) == ["1"]
    assert "time ran out: of `timeouts.validate`" in latency.detail
    assert sorted(checks["server/latency/first"].measured) == ["1", "8"]


def test_time_that_ends_before_the_answers_fails_the_check_and_names_the_key(
    subject: Subject, server: RunningServer, tmp_path: Path
) -> None:
    from tasks.model_process import replaying

    plan = plan_of(subject, server, tmp_path / "served")
    load, _ = stages(plan)
    assert load().problem == ""

    checks = replaying._Replay(plan, time.monotonic()).checks()

    assert [made.check for made in checks] == ["server/grpc/classify", "server/grpc/serving_default"]
    for made in checks:
        assert not made.passed
        assert "`timeouts.validate`" in made.detail


def test_an_address_where_no_model_server_answers_is_refused_before_any_work() -> None:
    spec = PackageSpec.parse({"model": "tiny", "server": f"127.0.0.1:{free_port()}"})

    with pytest.raises(InvalidInputError, match="no TensorFlow Serving answers there"):
        require_server(spec)
