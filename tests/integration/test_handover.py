"""A conversion on a worker elsewhere: two real workers of a real Prefect server, and a registry on S3 between them."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from flows.package_model import package_model
from model_registry import paths
from model_registry.collection import plan
from model_registry.errors import ConversionError
from model_registry.registry import Registry
from model_registry.servable import NATIVE, TENSORRT_FP16
from model_registry.variants import REHEARSAL
from tasks import handover_waiting
from tasks.conversion_place import find_place
from tasks.conversion_pool import Pool
from tasks.handover_documents import HandoverResult, Staging
from tasks.handover_waiting import Patience, Waiting
from tests.support.command import assert_no_process_in
from tests.support.deployments import finished, logs_of, runs_of, start_run
from tests.support.fixtures_prefect import StartWorker
from tests.support.fixtures_s3 import Bucket
from tests.support.prefect_api import call, ids, until
from tests.support.prefect_processes import PrefectServer, PrefectWorker

pytestmark = pytest.mark.xdist_group("prefect-workers")

DEPLOYMENT = "convert-model/convert-model"


@dataclass(frozen=True)
class Pools:
    """What was deployed, on whose server."""

    server: PrefectServer
    deployments: dict[str, dict[str, Any]]

    def conversions(self) -> list[dict[str, Any]]:
        """The runs of convert-model, the last one first."""
        return runs_of(self.server, self.deployments["convert-model"])


@pytest.fixture
def pools(
    prefect_server: PrefectServer, deployments: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pools]:
    """This process talks to the server as a worker would: by its variable."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api_url)
    with prefect_server.connected():
        yield Pools(prefect_server, deployments)


@pytest.fixture
def model(models: Path, tmp_path: Path) -> Iterator[Path]:
    """A model that is enough for an engine; no process may be left with it."""
    yield Path(shutil.copy(models / "deep.keras", tmp_path))
    assert_no_process_in(tmp_path)


def moved_to(pools: Pools, pool: str) -> None:
    call(pools.server, f"deployments/{pools.deployments['convert-model']['id']}", {"work_pool_name": pool}, "PATCH")


def keys(bucket: Bucket) -> list[str]:
    found = boto3.session.Session().client("s3").list_objects_v2(Bucket=bucket.name).get("Contents", [])
    return [item["Key"] for item in found]


def staged(bucket: Bucket) -> list[str]:
    return [key for key in keys(bucket) if "/staging/" in key]


def converter_of(worker: PrefectWorker) -> psutil.Process | None:
    """The process that converts for a worker."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "tasks.model_process" in command and "convert" in command:
            with contextlib.suppress(psutil.Error):
                if worker.pid in [parent.pid for parent in process.parents()]:
                    return process
    return None


def stopped_converter(worker: PrefectWorker) -> psutil.Process:
    """Holds the worker's conversion fast in its midst."""
    found: list[psutil.Process] = []

    def look() -> bool:
        process = converter_of(worker)
        if process is not None:
            process.suspend()
            found.append(process)
        return bool(found)

    until(look, "the worker converts")
    return found[0]


def in_the_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    """Runs what acts on others while this thread waits for them."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - for the test's own thread to look at
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


# Before any work.


def test_a_pool_that_cannot_start_a_run_is_noticed_before_any_work(
    pools: Pools, model: Path, s3_bucket: Bucket
) -> None:
    call(pools.server, "work_pools/", {"name": "idle", "type": "process"})
    moved_to(pools, "idle")
    runs_before = ids(pools.server, "flow_runs")
    try:
        with pytest.raises(ConversionError) as caught:
            package_model(source=str(model), registry=s3_bucket.url, variants=(TENSORRT_FP16,))
        assert "the work pool 'idle' has no worker that is online, and never had one" in caught.value.message
        assert caught.value.hint == "start one where the GPU is: prefect worker start --pool idle"
        call(pools.server, "work_pools/idle", {"is_paused": True}, "PATCH")
        place = find_place(s3_bucket.url)
        assert "the work pool 'idle' is paused" in getattr(place, "reason", "")
    finally:
        moved_to(pools, "gpu")
    assert keys(s3_bucket) == []
    assert len(ids(pools.server, "flow_runs") - runs_before) == 1  # its own, and nobody was asked to convert


def test_a_registry_on_a_local_disk_is_refused_for_a_worker_elsewhere(
    pools: Pools, prefect_worker: StartWorker, model: Path, tmp_path: Path
) -> None:
    prefect_worker("gpu")
    assert find_place("s3://bucket/registry") == Pool(DEPLOYMENT, "gpu")

    with pytest.raises(ConversionError, match="on a local disk cannot be reached by a worker elsewhere") as caught:
        package_model(source=str(model), registry=str(tmp_path / "registry"), variants=(TENSORRT_FP16,))

    assert "keep the registry on s3://" in (caught.value.hint or "")
    assert not (tmp_path / "registry").exists()


# The work.


def test_a_model_is_packaged_by_one_worker_and_converted_by_the_other(
    pools: Pools, prefect_worker: StartWorker, model: Path, s3_bucket: Bucket
) -> None:
    environ = s3_bucket.environ()
    prefect_worker("default", environ)
    telling = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO"}
    gpu = prefect_worker("gpu", {**environ, **telling, "SLIPWAY_CONVERSION": "rehearsal"})
    parameters = {"source": str(model), "registry": s3_bucket.url, "variants": [TENSORRT_FP16]}

    run = start_run(pools.server, pools.deployments["package-model"], **parameters)
    over = finished(pools.server, run)

    assert over["state"]["type"] == "COMPLETED", logs_of(pools.server, run)
    (version,) = Registry.open(s3_bucket.url).versions("deep")
    assert [variant.name for variant in version.variants] == [NATIVE, REHEARSAL]
    assert (version.missing, version.run.id) == ({}, run)
    assert {check.variant for check in version.blessing.checks} == {NATIVE, TENSORRT_FP16, REHEARSAL}
    assert Registry.open(s3_bucket.url).verify(version) == []
    assert staged(s3_bucket) == []
    conversion = pools.conversions()[0]
    assert (over["work_pool_name"], conversion["work_pool_name"]) == ("default", "gpu")
    assert conversion["id"] in gpu.log.read_text()  # that worker submitted it
    assert finished(pools.server, conversion["id"])["state"]["type"] == "COMPLETED"
    until(lambda: "this was a rehearsal: no TensorRT ran" in logs_of(pools.server, conversion["id"]), "it is logged")
    assert f"handed over to work pool 'gpu': flow run '{conversion['name']}'" in logs_of(pools.server, run)


def test_a_worker_that_is_killed_halfway_leaves_nothing_and_the_flow_says_so(
    pools: Pools, prefect_worker: StartWorker, model: Path, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover_waiting, "PATIENCE", Patience(look=0.5, pulse=12.0))
    gpu = prefect_worker("gpu", {**s3_bucket.environ(), "SLIPWAY_CONVERSION": "rehearsal"})
    beaten: list[str] = []

    def kill() -> None:
        stopped_converter(gpu)
        beaten.extend(staged(s3_bucket))
        gpu.kill()

    killing, failures = in_the_background(kill)
    with pytest.raises(ConversionError) as caught:
        package_model(source=str(model), registry=s3_bucket.url, variants=(TENSORRT_FP16,))
    killing.join()

    assert failures == []
    assert any(key.endswith("/pulse.json") for key in beaten)
    conversion = pools.conversions()[0]
    assert f"flow run '{conversion['name']}'" in caught.value.message
    assert "on work pool 'gpu' died: it gave no sign of life for" in caught.value.message
    assert "out of memory" in (caught.value.hint or "")
    state = call(pools.server, f"flow_runs/{conversion['id']}")["state"]
    assert (state["type"], "no sign of life" in state["message"]) == ("CRASHED", True)
    assert keys(s3_bucket) == []


def test_a_packaging_that_is_cancelled_cancels_its_conversion_and_leaves_nothing(
    pools: Pools, prefect_worker: StartWorker, model: Path, s3_bucket: Bucket
) -> None:
    environ = s3_bucket.environ()
    prefect_worker("default", environ)
    gpu = prefect_worker("gpu", {**environ, "SLIPWAY_CONVERSION": "rehearsal"})
    parameters = {"source": str(model), "registry": s3_bucket.url, "variants": [TENSORRT_FP16]}
    run = start_run(pools.server, pools.deployments["package-model"], **parameters)
    converter = stopped_converter(gpu)
    conversion = pools.conversions()[0]["id"]

    call(pools.server, f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    assert finished(pools.server, run)["state"]["type"] == "CANCELLED"
    assert finished(pools.server, conversion)["state"]["type"] == "CANCELLED"
    until(lambda: not converter.is_running(), "the converter is gone")
    until(lambda: keys(s3_bucket) == [], "nothing is left")


# What the requester says of a run that will bring nothing.


def waiting(bucket: Bucket, run: str) -> Waiting:
    return Waiting(Registry.open(bucket.url).store, Staging(run), Pool(DEPLOYMENT, "gpu"), timeout=600.0)


def test_a_conversion_that_somebody_cancels_or_that_fails_is_told_by_its_state(pools: Pools, s3_bucket: Bucket) -> None:
    for state, expected in (
        ({"type": "CANCELLED"}, "was cancelled"),
        ({"type": "CRASHED", "message": "the pod was evicted"}, "crashed: the pod was evicted"),
        ({"type": "COMPLETED"}, "ended as Completed, and brought nothing back"),
    ):
        with waiting(s3_bucket, "r") as asked:
            run = pools.conversions()[0]["id"]
            call(pools.server, f"flow_runs/{run}/set_state", {"state": state, "force": True})
            with pytest.raises(ConversionError, match=rf"on work pool 'gpu' {expected}"):
                asked.result()


def test_a_conversion_that_no_worker_takes_up_is_given_up_and_cancelled(
    pools: Pools, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(pools.server, "work_pools/", {"name": "deserted", "type": "process"})
    moved_to(pools, "deserted")
    monkeypatch.setattr(handover_waiting, "PATIENCE", Patience(look=0.1, nobody=0.5))
    asked = Waiting(Registry.open(s3_bucket.url).store, Staging("r"), Pool(DEPLOYMENT, "deserted"), timeout=600.0)
    try:
        with pytest.raises(ConversionError, match="was never started: the work pool 'deserted' has no worker"), asked:
            asked.result()
    finally:
        moved_to(pools, "gpu")
    assert pools.conversions()[0]["state"]["type"] == "CANCELLED"


def test_the_result_counts_whatever_the_state_of_the_run_and_a_staging_left_by_a_killed_run_is_seen_by_gc(
    pools: Pools, s3_bucket: Bucket
) -> None:
    registry, staging = Registry.open(s3_bucket.url), Staging("r")
    told = HandoverResult.from_json(
        b'{"schema_version": 1, "error": {"message": "no memory", "hint": "less"}}', key="k"
    )
    registry.store.put_new(staging.result, told.to_json())
    with waiting(s3_bucket, "r") as asked:
        run = pools.conversions()[0]["id"]
        call(pools.server, f"flow_runs/{run}/set_state", {"state": {"type": "FAILED"}, "force": True})
        assert asked.result() == told

    (item,) = plan(registry, grace=0.0).items
    assert (item.kind, item.name) == ("staging", paths.staging("r"))
