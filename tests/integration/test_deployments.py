"""prefect.yaml on a real server with a real worker: what a schedule, an event and a label set off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_registry.registry import Registry
from model_registry.revision import revision_of
from model_registry.servable import Source
from tests.support.command import slipway
from tests.support.deployments import finished, logs_of, paused, runs_of, start_run, state_of
from tests.support.fixtures_prefect import StartWorker
from tests.support.fixtures_s3 import Bucket
from tests.support.prefect_api import artifacts_since, ids, until
from tests.support.prefect_processes import PrefectServer
from tests.support.trainers import Trainer, publish_from, refuse_from, sha256

pytestmark = pytest.mark.xdist_group("prefect-workers")

Deployments = dict[str, dict[str, Any]]


def most_at_once(runs: list[dict[str, Any]]) -> int:
    """How many were ordered and not over, at most."""
    moments = [(run["created"], 1) for run in runs] + [(run["end_time"], -1) for run in runs]
    most = now = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


def test_the_deployments_are_what_the_documentation_says(deployments: Deployments) -> None:
    assert {name: deployment["work_pool_name"] for name, deployment in deployments.items()} == {
        "convert-model": "gpu",
        "convert-version": "default",
        "package-model": "default",
        "package-new-models": "default",
        "promote-model": "default",
        "roll-out-model": "default",
    }
    scheduled = deployments["package-new-models"]
    assert [(item["schedule"]["cron"], item["active"]) for item in scheduled["schedules"]] == [("0 * * * *", False)]
    assert scheduled["global_concurrency_limit"]["limit"] == 1
    assert scheduled["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    for deployment in deployments.values():
        assert not deployment["pull_steps"]
        form = deployment["parameter_openapi_schema"]["properties"]
        assert [name for name, field in form.items() if not field.get("description")] == [], deployment["name"]
    form = scheduled["parameter_openapi_schema"]["properties"]
    assert form["variants"]["items"]["enum"] == ["native", "tensorrt-fp16"]


def test_a_schedule_an_event_and_a_label_set_off_what_they_should(
    s3_bucket: Bucket,
    models: Path,
    tmp_path: Path,
    prefect_server: PrefectServer,
    prefect_worker: StartWorker,
    deployments: Deployments,
) -> None:
    from prefect.events import emit_event

    from flows.package_new_models import package_new_models

    trainer, registry = Trainer(s3_bucket), Registry.open(s3_bucket.url)
    for folder in ("a-damaged", "b-damaged"):
        trainer.hand_over(folder, f"no model {folder}".encode(), "model: damaged\nsource: damaged.keras")
    trainer.hand_over("c-new", models / "tiny.keras", "model: tiny\nsource: tiny.keras")
    seen = trainer.hand_over("d-seen", b"seen", "model: seen\nsource: seen.keras")
    publish_from(registry, tmp_path, model="seen", source=Source(seen, "keras", sha256(b"seen"), 4))
    refused = trainer.hand_over("e-refused", b"refused", "model: refused\nsource: refused.keras")
    refuse_from(registry, model="refused", source=Source(refused, "keras", sha256(b"refused"), 7))
    trainer.put("f-broken/package.yaml", b"model: [")
    trainer.put("not-ready/tiny.keras", (models / "tiny.keras").read_bytes())
    prefect_worker("default", environ={**s3_bucket.environ(), "SLIPWAY_REGISTRY": s3_bucket.url})
    runs_before = ids(prefect_server, "flow_runs")
    artifacts_before = ids(prefect_server, "artifacts")

    def packagings() -> list[dict[str, Any]]:
        found = runs_of(prefect_server, deployments["package-model"])
        return [run for run in found if run["id"] not in runs_before]

    # The schedule.

    deployment = deployments["package-new-models"]
    scanning = start_run(prefect_server, deployment, trained=f"{trainer.trained}/", variants=["native"], at_once=2)
    until(lambda: state_of(prefect_server, scanning) != "SCHEDULED", "the worker takes the run")
    with paused(prefect_server, "default"):  # so that none is over before the next is ordered
        until(lambda: len(packagings()) == 2, "as many are ordered as may be at once")
    run = finished(prefect_server, scanning)

    assert run["state"]["type"] == "FAILED", logs_of(prefect_server, scanning)
    message = run["state"]["message"]
    assert "3 of 6 trained models were not packaged: a-damaged: failed: InvalidInputError" in message
    assert "f-broken: failed: package.yaml" in message
    made = packagings()
    assert {run["parameters"]["spec"]: run["state"]["type"] for run in made} == {
        f"{trainer.trained}/a-damaged/package.yaml": "FAILED",
        f"{trainer.trained}/b-damaged/package.yaml": "FAILED",
        f"{trainer.trained}/c-new/package.yaml": "COMPLETED",
    }
    assert (len(made), most_at_once(made)) == (3, 2)
    rows = json.loads(artifacts_since(prefect_server, artifacts_before)["new-models"]["data"])
    assert {row["folder"]: (row["verdict"], row["model"], row["version"]) for row in rows} == {
        "a-damaged": ("failed", "damaged", ""),
        "b-damaged": ("failed", "damaged", ""),
        "c-new": ("packaged", "tiny", 1),
        "d-seen": ("seen before", "seen", 1),
        "e-refused": ("seen before", "refused", ""),
        "f-broken": ("failed", "", ""),
    }
    until(lambda: "c-new: packaged as tiny:1" in logs_of(prefect_server, scanning), "the outcome is logged")
    (version,) = registry.versions("tiny")
    assert version.run.id in {run["id"] for run in made}
    assert version.source.uri == f"{trainer.trained}/c-new/tiny.keras"
    assert version.source.revision == revision_of(version.source.uri)

    for folder in ("a-damaged", "b-damaged", "f-broken"):
        trainer.remove(folder)
    with prefect_server.connected():
        again = package_new_models(trainer.trained, registry=s3_bucket.url, variants=("native",))

    assert {item["folder"]: item["verdict"] for item in again["folders"]} == {
        "c-new": "seen before",
        "d-seen": "seen before",
        "e-refused": "seen before",
    }
    assert len(packagings()) == 3

    # The event that a trainer emits, as docs/deployments.md tells it to, and a label that is moved.

    with prefect_server.connected():
        emit_event(
            event="slipway.model.trained",
            resource={"prefect.resource.id": "slipway.model.tiny"},
            payload={"spec": f"{trainer.trained}/c-new/package.yaml"},
        )
    environ = {**prefect_server.environ(), **s3_bucket.environ()}
    moved = slipway("promote", "tiny:1", "gpu", "--registry", s3_bucket.url, folder=tmp_path, environ=environ)
    assert (moved.code, moved.stderr) == (0, "")

    def conversions() -> list[dict[str, Any]]:
        found = runs_of(prefect_server, deployments["convert-version"])
        return [run for run in found if run["parameters"].get("registry") == s3_bucket.url]

    until(lambda: len(packagings()) == 4, "the event starts a run")
    until(lambda: len(conversions()) == 1, "the moved label starts a conversion")

    handed_over = finished(prefect_server, packagings()[0]["id"])
    assert handed_over["parameters"]["spec"] == f"{trainer.trained}/c-new/package.yaml"
    assert handed_over["state"]["type"] == "COMPLETED", handed_over["state"]
    assert len(registry.versions("tiny")) == 1
    conversion = finished(prefect_server, conversions()[0]["id"])
    assert conversion["parameters"]["version"] == "tiny:1"
    # There is neither a GPU here nor a worker that has one: that it was tried, and said so, is what can be seen.
    assert conversion["state"]["type"] == "FAILED"
    assert "ConversionError" in conversion["state"]["message"]
