"""A candidate in a container of a real Docker engine, whatever becomes of the server in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click.testing
import pytest

from flows.cli import main
from model_registry.errors import InvalidInputError
from model_registry.spec import PackageSpec
from model_registry.variants import REHEARSAL
from tasks import docker_engine as engines
from tasks.server_check import Subject, check_in_server, require_server
from tasks.serving_container import ServingContainer
from tests.support.command import SLIPWAY, Outcome, assert_no_process_in, scratch_of
from tests.support.docker_engine import IMAGE, DockerEngine
from tests.support.prefect_processes import PrefectServer

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

_WITHIN = 60.0
_GIB = 1 << 30

# A server that is there, and never comes to anything.
NEVER_READY = ["bash", "-c", "echo 'still thinking'; sleep 600"]
DIES = ["bash", "-c", r"printf 'out of ideas \e[31m\n'; exit 7"]


def package(server: PrefectServer, *arguments: str) -> Outcome:
    """Calls the command in this process, beside the Prefect server that is running."""
    with server.connected():
        result = click.testing.CliRunner().invoke(main, ["package", *arguments, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def checks_of(subject: Subject, workspace: Path, **keys: Any) -> dict[str, Any]:
    spec = PackageSpec.parse({"model": "tiny", "server": "docker", **keys})
    return {check.check: check for check in check_in_server(subject, spec, workspace)[0]}


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + _WITHIN
    while not (answer := found()):
        assert time.monotonic() < deadline, f"waited for: {what}"
        time.sleep(0.1)
    return answer


@pytest.fixture
def engine(docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
    """The engine, as DOCKER_HOST names it; no container may be left in it."""
    monkeypatch.setenv("DOCKER_HOST", docker_engine.host)
    yield docker_engine
    assert docker_engine.containers() == []


@pytest.fixture
def folder(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a model in it; no process may be left there afterwards."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("tiny.keras", "deep.keras"):
        shutil.copy(models / name, folder)
    monkeypatch.chdir(folder)
    yield folder
    assert_no_process_in(tmp_path)


@pytest.fixture(scope="module")
def subject(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    from tests.support import served_candidates  # TensorFlow takes seconds, and half of these tests need none

    return served_candidates.subject(models / "tiny.keras", tmp_path_factory.mktemp("candidate"))


def write_spec(folder: Path, **keys: str) -> None:
    lines = {"model": "tiny", "source": "tiny.keras", "server": "docker", **keys}
    (folder / "package.yaml").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))


def test_a_candidate_is_tried_in_the_servers_image_before_it_is_published(
    folder: Path, engine: DockerEngine, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_CONVERSION", "rehearsal")
    write_spec(folder, source="deep.keras")
    seen: list[dict[str, Any]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen.extend(engine.containers())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        report = package(prefect_server, "--spec", "package.yaml").document
    finally:
        done.set()
        watching.join()

    assert (report["version"], report["verdict"]) == (1, "blessed")
    stages = [stage["stage"] for stage in report["stages"]]
    assert stages[-5:] == ["validate", "serve", "estimate", "convert", "publish"]
    rehearsed = next(check for check in report["checks"] if check["check"] == "server")
    assert (rehearsed["variant"], rehearsed["measured"], rehearsed["passed"]) == (REHEARSAL, "not run", True)
    checks = {check["check"]: check for check in report["checks"] if check["variant"] == "native"}
    load = checks["server/load"]
    assert 0 < load["measured"] < load["threshold"] == 900
    assert IMAGE in load["detail"]
    records = checks["server/warm-up records"]
    assert records["measured"] == records["threshold"] == 2
    for way in ("grpc", "rest"):
        parity = checks[f"server/{way}/serving_default/y"]
        assert parity["passed"] and parity["measured"]["max_absolute_error"] <= parity["threshold"]["atol"]
    for name in ("server/latency", "server/latency/first"):
        assert sorted(checks[name]["measured"]) == ["1", "8"]
        assert checks[name]["threshold"] == "recorded"

    running = next(container for container in seen if container["State"]["Running"])
    host = running["HostConfig"]
    assert (host["Memory"], host["ReadonlyRootfs"], host["CapDrop"]) == (8 * _GIB, True, ["ALL"])
    assert not host["Privileged"] and "no-new-privileges" in host["SecurityOpt"]
    assert [(mount["Destination"], mount["RW"]) for mount in running["Mounts"]] == [("/models/tiny/1", False)]
    bound = running["NetworkSettings"]["Ports"]
    assert {port: [entry["HostIp"] for entry in entries] for port, entries in bound.items() if entries} == {
        "8500/tcp": ["127.0.0.1"],
        "8501/tcp": ["127.0.0.1"],
    }


def test_a_server_that_dies_rejects_the_candidate_and_its_log_is_kept(
    folder: Path, engine: DockerEngine, prefect_server: PrefectServer
) -> None:
    write_spec(folder, image=engine.image("dies", DIES))

    refused = package(prefect_server, "--spec", "package.yaml")
    assert (refused.code, refused.error["class"]) == (1, "InvalidInputError")
    assert "`image: dies:1`" in refused.error["message"]

    rejected = package(prefect_server, "--spec", "package.yaml", "--trust")
    assert (rejected.code, rejected.error["class"]) == (3, "RejectedError")
    assert "server/load measured not AVAILABLE" in rejected.error["message"]
    (kept,) = (folder / "registry" / "registry" / "tiny" / "rejected").iterdir()
    text = kept.read_text()
    assert "the server ended with status 7" in text
    assert "out of ideas ?[31m" in text


def test_a_server_that_never_becomes_ready_is_given_up_in_time(
    subject: Subject, engine: DockerEngine, tmp_path: Path
) -> None:
    image = engine.image("never", NEVER_READY)

    checks = checks_of(subject, tmp_path, image=image, timeouts={"validate": 2})

    (load,) = checks.values()
    assert (load.check, load.passed, load.threshold) == ("server/load", False, 2.0)
    assert load.detail.splitlines()[0] == "not AVAILABLE within 2 s, the server told nothing of it"
    assert load.detail.splitlines()[-1] == "still thinking"


def test_the_servers_own_reason_is_told_where_it_cannot_load(
    subject: Subject, engine: DockerEngine, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(subject.directory, broken)
    records = broken / "assets.extra" / "tf_serving_warmup_requests"
    data = bytearray(records.read_bytes())
    data[-5] ^= 1
    records.write_bytes(data)

    checks = checks_of(replace(subject, directory=broken), tmp_path)

    assert list(checks) == ["server/load"]
    assert not checks["server/load"].passed
    assert "Please verify your warmup data is in TFRecord format" in checks["server/load"].detail


@pytest.mark.usefixtures("engine")
def test_a_variant_with_engines_asks_for_a_gpu(tmp_path: Path) -> None:
    """This machine has none to give, which the engine says itself."""
    with engines.docker_engine() as client:
        container = ServingContainer(client, IMAGE, "tiny", tmp_path, accelerated=True, limit=60)
        with pytest.raises(InvalidInputError, match="could not select device driver") as caught, container:
            pass

    assert "NVIDIA Container Toolkit" in str(caught.value.hint)


def test_a_signal_ends_the_command_and_the_container_with_it(
    folder: Path, engine: DockerEngine, prefect_server: PrefectServer
) -> None:
    write_spec(folder, image=engine.image("never", NEVER_READY))
    process = subprocess.Popen(
        [SLIPWAY, "package", "--spec", "package.yaml", "--trust"],
        env={**prefect_server.environ(), "TMPDIR": str(scratch_of(folder))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: [found for found in engine.containers() if found["State"]["Running"]], "the server runs")

    process.terminate()
    _, stderr = process.communicate(timeout=_WITHIN)

    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert "ended by SIGTERM" in stderr
    assert engine.containers() == []


def test_a_later_run_removes_what_a_killed_one_left(engine: DockerEngine, tmp_path: Path) -> None:
    image = engine.image("never", NEVER_READY)
    code = f"""
        import os, pathlib, sys
        from tasks.docker_engine import docker_engine
        from tasks.serving_container import ServingContainer
        with docker_engine() as client:
            with ServingContainer(
                client, {image!r}, "tiny", pathlib.Path({str(tmp_path)!r}), accelerated=False, limit=600
            ):
                print("running", flush=True)
                sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ.copy(),
    )
    assert process.stdout is not None and process.stdin is not None
    with process.stdout, process.stdin:
        assert process.stdout.readline() == b"running\n"
        with engines.docker_engine() as client:
            engines.sweep(client)
            assert len(engine.containers()) == 1  # its run lives

            process.kill()
            process.wait()
            engines.sweep(client)


def test_a_container_gets_its_own_environment_and_none_of_the_engines_users(
    engine: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's own tools pass the proxies of ~/.docker/config.json, and with them their passwords, to containers."""
    (tmp_path / "config.json").write_text(
        json.dumps({"proxies": {"default": {"httpProxy": "http://somebody:secret@proxy:3128"}}})
    )
    image = engine.image("never", NEVER_READY)  # before: it is made of a container too
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    with engines.docker_engine() as client:
        of_the_image = client.api.inspect_image(image)["Config"]["Env"]
        with ServingContainer(client, image, "tiny", tmp_path, accelerated=False, limit=60):
            (container,) = engine.containers()

    ours = ["MODEL_NAME=tiny", "MODEL_BASE_PATH=/models", "HOME=/tmp", "TF_CPP_MIN_LOG_LEVEL=0"]
    expected = dict(entry.split("=", 1) for entry in [*of_the_image, *ours])
    assert dict(entry.split("=", 1) for entry in container["Config"]["Env"]) == expected


def test_a_container_that_could_not_be_removed_goes_once_its_time_is_up(engine: DockerEngine) -> None:
    """Its process may be a worker that lives for months."""
    image = engine.image("never", NEVER_READY)

    def left(expires: float) -> None:
        labels = {**engines.LABELS, engines.OWNER: engines.owner(), engines.EXPIRES: str(int(expires))}
        client.containers.create(image, labels=labels)

    with engines.docker_engine() as client:
        left(time.time() - 1)
        left(time.time() + 600)
        engines.sweep(client)
        (kept,) = engine.containers()
        assert int(kept["Config"]["Labels"][engines.EXPIRES]) > time.time()
        engines.remove(client, kept["Id"])


def test_without_an_engine_nothing_is_begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spec(folder)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/nobody.sock")

    result = click.testing.CliRunner().invoke(main, ["package", "--spec", "package.yaml", "--json"])

    outcome = Outcome(result.exit_code, result.stdout, result.stderr)
    assert (outcome.code, outcome.error["class"]) == (1, "InvalidInputError")
    assert f"no Docker engine answers at unix://{folder}/nobody.sock" in outcome.error["message"]
    assert "DOCKER_HOST" in outcome.error["hint"]
    assert not (folder / "registry").exists()


@pytest.mark.usefixtures("engine")
def test_an_image_that_cannot_be_had_is_told_before_any_work() -> None:
    image = "127.0.0.1:9/nobody/serves:1"
    spec = PackageSpec.parse({"model": "tiny", "server": "docker", "image": image})

    with pytest.raises(InvalidInputError, match="is not here and could not be pulled") as caught:
        require_server(spec)

    assert f"docker pull {image}" in str(caught.value.hint)
