"""The flow on a real Prefect server: what it leaves there and in the registry, and how it ends early."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import click.testing
import psutil
import pytest

from flows.cli import main
from model_registry import paths
from model_registry.errors import InvalidInputError, StorageError
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.state import Past
from tests.support.command import SLIPWAY, Outcome, assert_no_process_in, scratch_of, slipway, tree
from tests.support.deployments import deploy
from tests.support.fixtures_prefect import StartWorker
from tests.support.fixtures_s3 import Bucket
from tests.support.prefect_api import artifacts_since, asked, call, ids, until
from tests.support.prefect_processes import PrefectServer

pytestmark = pytest.mark.xdist_group("prefect")

ROOT = Path(__file__).parents[2]
_WITHIN = 120.0

SPEC = "model: tiny\nsource: tiny.keras\ncustom_objects: [what_it_does]\n"
SLEEPS = """
    import pathlib, time
    pathlib.Path(__file__).with_name("began").touch()
    time.sleep(600)
"""
ABORTS = "import os; print('about to abort', flush=True); os.abort()"
REWRITES_THE_SOURCE = """
    import pathlib
    source = pathlib.Path(__file__).with_name("tiny.keras")
    source.write_bytes(source.read_bytes())
"""


def persisted() -> list[Path]:
    """What Prefect wrote for later; of a run that failed that is its exception, whatever a flow asks for."""
    return sorted(Path(os.environ["PREFECT_HOME"]).glob("storage/*"))


def package(server: PrefectServer, *arguments: str | Path) -> Outcome:
    """Calls the command in this process, beside the server that is running."""
    with server.connected():
        result = click.testing.CliRunner().invoke(main, ["package", *map(str, arguments), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def folder(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with models in it; no process may be left there afterwards."""
    folder = tmp_path / "work"
    shutil.copytree(models, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    yield folder
    assert_no_process_in(tmp_path)
    assert sorted(scratch_of(folder).iterdir()) == []


def bring(folder: Path, code: str) -> None:
    """Writes a spec whose custom object does something when it is imported."""
    (folder / "package.yaml").write_text(SPEC)
    (folder / "what_it_does.py").write_text(textwrap.dedent(code))


def test_a_packaging_is_published_reused_and_forced(folder: Path, prefect_server: PrefectServer) -> None:
    before, runs_before = ids(prefect_server, "artifacts"), ids(prefect_server, "flow_runs")
    persisted_before = persisted()

    first = package(prefect_server, "tiny.keras").document

    assert (first["model"], first["version"], first["verdict"], first["reused"]) == ("tiny", 1, "blessed", False)
    stages = ["fetch", "load", "export", "warm up", "validate", "publish"]
    assert [stage["stage"] for stage in first["stages"]] == stages
    artifacts = artifacts_since(prefect_server, before)
    assert [(key, artifacts[key]["type"]) for key in sorted(artifacts)] == [
        ("tiny-checks", "table"),
        ("tiny-stages", "table"),
        ("tiny-version", "markdown"),
    ]
    assert [name in artifacts["tiny-stages"]["data"] for name in stages] == [True] * 6
    assert "saved_model_cli run" in artifacts["tiny-checks"]["data"]
    assert f"[tiny:1](file://{folder}/registry/models/tiny/native/1/)" in artifacts["tiny-version"]["data"]
    (run,) = [run for run in asked(prefect_server, "flow_runs") if run["id"] not in runs_before]
    tasks = asked(prefect_server, "task_runs", task_runs={"flow_run_id": {"any_": [run["id"]]}})
    assert sorted(task["name"].rsplit("-", 1)[0] for task in tasks) == sorted(stages)
    for state in (run["state"], *(task["state"] for task in tasks)):
        assert state["type"] == "COMPLETED"
        assert not (state["data"] or {}).get("storage_key")
    assert persisted() == persisted_before
    (manifest,) = Registry.open(str(folder / "registry")).versions("tiny")
    assert (manifest.run.id, manifest.run.name) == (run["id"], run["name"])

    second = package(prefect_server, "tiny.keras").document

    assert (second["version"], second["reused"]) == (1, True)
    assert [stage["stage"] for stage in second["stages"]] == ["fetch"]
    assert second["variants"] == first["variants"]

    third = package(prefect_server, "tiny.keras", "--force").document

    assert (third["version"], third["reused"]) == (2, False)
    assert not (folder / "registry" / "staging").exists()


def test_a_label_follows_what_was_packaged_and_a_late_version_stays_without(
    folder: Path, prefect_server: PrefectServer
) -> None:
    before = ids(prefect_server, "artifacts")

    first = package(prefect_server, "tiny.keras", "--label", "stable").document

    assert [stage["stage"] for stage in first["stages"]][-2:] == ["publish", "label"]
    assert (first["label"]["to"], first["label"]["changed"], first["version"]) == (1, True, 1)
    registry = Registry.open(str(folder / "registry"))
    (record,) = registry.history("tiny")
    assert record.origin.run == registry.get(Reference("tiny")).run
    assert "tiny-labels" in artifacts_since(prefect_server, before)

    # As if 9 had been labelled, taken back and retired, while this packaging went on.
    state = registry.state("tiny")
    key = paths.state("tiny")
    highest = replace(state, pasts={"stable": Past((), 9)})
    registry.store.put_if_match(key, highest.to_json(), registry.store.get(key).etag)
    before = ids(prefect_server, "artifacts")

    late = package(prefect_server, "tiny.keras", "--force", "--label", "stable")

    assert (late.code, late.error["class"]) == (4, "ConflictError")
    assert "tiny:2 is committed, but labelling it failed" in late.error["message"]
    assert "expected a version above 9" in late.error["message"]
    assert [version.version for version in registry.versions("tiny")] == [2, 1]
    assert registry.state("tiny").labels == {"stable": 1}
    assert sorted(artifacts_since(prefect_server, before)) == ["tiny-checks", "tiny-stages", "tiny-version"]


def test_a_rejected_model_leaves_its_checks_and_no_version(folder: Path, prefect_server: PrefectServer) -> None:
    (folder / "package.yaml").write_text("model: half\nsource: half.keras\nvariants: {native: {atol: 0, rtol: 0}}\n")
    before = ids(prefect_server, "artifacts")

    outcome = package(prefect_server, "--spec", "package.yaml")

    document = outcome.document
    assert (outcome.code, document["error"]["class"]) == (3, "RejectedError")
    failed = [check["check"] for check in document["checks"] if not check["passed"]]
    assert failed
    assert all(name.startswith("parity/serving_default/") for name in failed)
    assert all(name in document["error"]["message"] for name in failed)
    artifacts = artifacts_since(prefect_server, before)
    assert sorted(artifacts) == ["half-checks", "half-stages"]
    assert "FAILED" in artifacts["half-checks"]["data"]
    registry = folder / "registry"
    assert Registry.open(str(registry)).versions("half") == []
    (record,) = (registry / "registry" / "half" / "rejected").iterdir()
    assert sorted(path.relative_to(registry) for path in registry.rglob("*") if path.is_file()) == [
        record.relative_to(registry)
    ]


def test_source_and_registry_on_s3(folder: Path, prefect_server: PrefectServer, s3_bucket: Bucket) -> None:
    boto3.session.Session().client("s3").upload_file("tiny.keras", s3_bucket.name, "trained/digits.keras")
    environ = {**prefect_server.environ(), **s3_bucket.environ()}
    with_registry = ["--registry", s3_bucket.url, "--json"]

    packaged = slipway(
        "package", f"s3://{s3_bucket.name}/trained/digits.keras", *with_registry, folder=folder, environ=environ
    )
    verified = slipway("verify", "digits:1", *with_registry, folder=folder, environ=environ)

    assert packaged.code == 0, packaged
    assert packaged.document["variants"]["native"]["uri"] == f"{s3_bucket.url}/models/digits/native/1/"
    assert (verified.code, packaged.stderr) == (0, "")
    assert not (folder / "registry").exists()


def test_two_runs_of_one_source_at_once_make_one_version(folder: Path, prefect_server: PrefectServer) -> None:
    scratch = scratch_of(folder)
    runs = [
        subprocess.Popen(
            [SLIPWAY, "package", "tiny.keras", "--json"],
            env={**prefect_server.environ(), "TMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outcomes = [Outcome(run.wait(), *outputs) for run in runs for outputs in [run.communicate()]]

    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert sorted(outcome.document["reused"] for outcome in outcomes) == [False, True]
    (version,) = Registry.open(str(folder / "registry")).versions("tiny")
    assert {outcome.document["version"] for outcome in outcomes} == {version.version}
    assert not (folder / "registry" / "staging").exists()


def test_a_crash_of_the_model_fails_the_run_and_the_process_goes_on(
    folder: Path, prefect_server: PrefectServer
) -> None:
    bring(folder, ABORTS)
    runs_before = ids(prefect_server, "flow_runs")
    before = tree(folder)

    crashed = package(prefect_server, "--spec", "package.yaml", "--trust")

    assert (crashed.code, crashed.error["class"]) == (1, "InvalidInputError")
    assert "was killed by SIGABRT while it should load" in crashed.error["message"]
    assert "about to abort" in crashed.error["message"]
    (run,) = [run for run in asked(prefect_server, "flow_runs") if run["id"] not in runs_before]
    assert (run["state"]["type"], run["run_count"]) == ("FAILED", 1)
    assert "SIGABRT" in run["state"]["message"]
    tasks = asked(prefect_server, "task_runs", task_runs={"flow_run_id": {"any_": [run["id"]]}})
    assert {task["name"].rsplit("-", 1)[0]: task["run_count"] for task in tasks} == {"fetch": 1, "load": 1}
    assert tree(folder) == before

    bring(folder, REWRITES_THE_SOURCE)
    rewritten = package(prefect_server, "--spec", "package.yaml", "--trust")

    assert (rewritten.code, rewritten.error["class"]) == (1, "InvalidInputError")
    assert "tiny.keras changed while it was packaged, nothing was published" in rewritten.error["message"]
    assert not (folder / "registry").exists()


def test_only_a_store_that_failed_for_the_moment_is_tried_again(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow

    from tasks.stage import stage

    calls: list[str] = []

    def fails_twice(error: Exception) -> int:
        calls.append(type(error).__name__)
        if len(calls) < 3:
            raise error
        return len(calls)

    attempt = stage(fails_twice, "attempt").with_options(retry_delay_seconds=0)

    @flow(name="try")
    def attempts(error: Exception) -> int:
        return attempt(error)

    with prefect_server.connected():
        assert attempts(StorageError("away for the moment", transient=True)) == 3
        for final in (StorageError("wrong keys"), InvalidInputError("no model")):
            calls.clear()
            with pytest.raises(type(final)):
                attempts(final)
            assert len(calls) == 1


# Ending early.


def start(folder: Path, environ: dict[str, str]) -> subprocess.Popen[str]:
    """Starts a packaging that gets stuck in the model's code, and waits until it is there."""
    bring(folder, SLEEPS)
    process = subprocess.Popen(
        # A shell's background job, which may be running these tests, ignores Ctrl-C, and so would its children.
        ["env", "--default-signal=INT", SLIPWAY, "package", "--spec", "package.yaml", "--trust"],
        env={**environ, "TMPDIR": str(scratch_of(folder))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until((folder / "began").exists, "the model's code is imported")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_all_it_started(folder: Path, number: signal.Signals) -> None:
    process = start(folder, dict(os.environ))
    until(lambda: len(psutil.Process(process.pid).children()) > 2, "a temporary Prefect server is started")

    # As a terminal sends Ctrl-C to all of a job, Prefect's server among them, and `kill` its signal to one.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    stdout, stderr = process.communicate(timeout=_WITHIN)

    assert process.returncode == 128 + number
    assert stdout == ""
    said = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}[number]
    lines = [line for line in stderr.splitlines() if not line.startswith("fetch ")]
    assert lines == [said], stderr
    assert not (folder / "registry").exists()


# A worker, which has the installed package and nothing of this checkout.


def _sources() -> set[str]:
    found = tree(ROOT / "flows").keys() | {path.name for path in ROOT.iterdir()}
    return {name for name in found if "__pycache__" not in name}


@pytest.fixture
def deployed(prefect_server: PrefectServer, prefect_worker: StartWorker) -> dict[str, dict[str, Any]]:
    """The deployments as the server has them, by name, with a worker in their pool."""
    prefect_worker("default")
    before = _sources()
    deployments = deploy(prefect_server)
    assert _sources() == before  # a deployment writes nothing into the checkout
    return deployments


def run_of(server: PrefectServer, deployment: dict[str, Any], **parameters: Any) -> str:
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return str(call(server, f"deployments/{deployment['id']}/create_flow_run", body)["id"])


def state_of(server: PrefectServer, run: str) -> str:
    return str(call(server, f"flow_runs/{run}")["state"]["type"])


def logs_of(server: PrefectServer, run: str) -> str:
    logs = asked(server, "logs", logs={"flow_run_id": {"any_": [run]}})
    return "\n".join(log["message"] for log in logs)


def test_a_worker_packages_and_promotes_by_the_deployments_and_a_cancelled_run_leaves_nothing(
    folder: Path, prefect_server: PrefectServer, deployed: dict[str, dict[str, Any]]
) -> None:
    assert str(ROOT) not in str(deployed)
    for name, module in (("package-model", "package_model"), ("promote-model", "promote_model")):
        assert not deployed[name]["pull_steps"]
        assert deployed[name]["entrypoint"] == f"flows.{module}.{module}"
    package_deployment = deployed["package-model"]
    registry = str(folder / "registry")

    run = run_of(prefect_server, package_deployment, source=str(folder / "tiny.keras"), registry=registry)
    until(lambda: state_of(prefect_server, run) in ("COMPLETED", "FAILED", "CRASHED"), "the run is over")

    assert state_of(prefect_server, run) == "COMPLETED", logs_of(prefect_server, run)
    (version,) = Registry.open(registry).versions("tiny")
    assert version.run.id == run
    until(lambda: "publish" in logs_of(prefect_server, run), "the stages are logged")

    promoted = run_of(
        prefect_server, deployed["promote-model"], model="tiny", version=1, label="stable", registry=registry
    )
    until(lambda: state_of(prefect_server, promoted) in ("COMPLETED", "FAILED", "CRASHED"), "the promotion is over")
    assert state_of(prefect_server, promoted) == "COMPLETED", logs_of(prefect_server, promoted)
    (record,) = Registry.open(registry).history("tiny")
    assert record.origin.run is not None and record.origin.run.id == promoted
    until(lambda: "tiny@stable: nothing -> tiny:1" in logs_of(prefect_server, promoted), "the move is logged")
    before = tree(folder / "registry")

    bring(folder, SLEEPS)
    cancelled = run_of(
        prefect_server, package_deployment, spec=str(folder / "package.yaml"), registry=registry, trust=True
    )
    until((folder / "began").exists, "the model's code is imported")
    call(prefect_server, f"flow_runs/{cancelled}/set_state", {"state": {"type": "CANCELLING"}})

    until(lambda: state_of(prefect_server, cancelled) == "CANCELLED", "the run is cancelled")
    assert_no_process_in(folder)
    assert tree(folder / "registry") == before
