"""The flow roll-out-model on a real Prefect server, over a real Prometheus: what it leaves, and what its end leaves."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_registry.errors import RejectedError
from model_registry.registry import Registry
from model_registry.state import Origin
from model_registry.storage import open_store
from tests.support.drafts import make_draft, make_payload
from tests.support.followed_pages import Answers, FollowedPages
from tests.support.metrics_page import MetricsPages
from tests.support.prefect_api import artifacts_since, asked, call, ids
from tests.support.prefect_processes import PrefectServer
from tests.support.prometheus_server import PrometheusServer

pytestmark = pytest.mark.xdist_group("prefect")

_WITHIN = 120.0
# As a worker does with a run that it was given, or given again: the run is one, its processes are many.
_EXECUTE = """
import json, sys, uuid
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from flows.roll_out_model import roll_out_model
with get_client(sync_client=True) as client:
    run = client.read_flow_run(uuid.UUID(sys.argv[1]))
run_flow(roll_out_model, flow_run=run, parameters=json.loads(sys.argv[2]))
"""


def _registry(folder: Path, model: str) -> Registry:
    registry = Registry(open_store(str(folder / "registry")))
    for identity in ("a1", "a2"):
        registry.publish(make_draft(model, identity=identity), {"native": make_payload(folder / "payload")})
    registry.promote(model, 1, "stable", origin=Origin("ann@build-7"))
    return registry


def test_a_worse_canary_fails_the_run_and_leaves_reason_numbers_and_plot(
    prefect_server: PrefectServer, prometheus: PrometheusServer, pages: MetricsPages, tmp_path: Path
) -> None:
    from flows.roll_out_model import roll_out_model

    registry = _registry(tmp_path, "worse")
    before, runs_before = ids(prefect_server, "artifacts"), ids(prefect_server, "flow_runs")

    with FollowedPages(pages, registry, "worse") as fleet, prefect_server.connected():
        fleet.versions[2] = Answers(errors=0.05)
        with pytest.raises(RejectedError, match=r"worse:2 was withdrawn: error rate .*%"):
            roll_out_model("worse", 2, steps=(25, 100), bake=20, prometheus=prometheus.url, registry=registry.store.uri)

    (run,) = [run for run in asked(prefect_server, "flow_runs") if run["id"] not in runs_before]
    assert run["state"]["type"] == "FAILED"
    withdrawn = next(record for record in registry.history("worse") if record.transition.action == "withdraw")
    assert withdrawn.origin.run is not None and withdrawn.origin.run.id == run["id"]
    assert any(each.metric == "error_rate" and each.verdict == "worse" for each in withdrawn.origin.evidence)
    assert registry.state("worse").labels == {"stable": 1} and registry.state("worse").traffic is None

    artifacts = artifacts_since(prefect_server, before)
    assert sorted(artifacts) == ["worse-labels", "worse-rollout"]
    text = artifacts["worse-rollout"]["data"]
    assert text.startswith("# worse:2 was worse than worse:1 and taken back\n")
    assert re.search(r"\| errors \| (5|[45]\.\d+) % .* WORSE \|", text)
    plot = re.search(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text)
    assert plot and b"</svg>" in base64.b64decode(plot[1])


def test_a_run_that_is_killed_in_every_phase_and_started_again_goes_on_with_its_own_rollout(
    prefect_server: PrefectServer, prometheus: PrometheusServer, pages: MetricsPages, tmp_path: Path
) -> None:
    from flows.roll_out_model import roll_out_model

    registry = _registry(tmp_path, "killed")
    parameters = {
        "model": "killed",
        "version": 2,
        "steps": [50, 100],
        "bake": 4.0,
        "prometheus": prometheus.url,
        "registry": registry.store.uri,
    }
    run = _create_run(prefect_server, roll_out_model, parameters)
    phases = [("starting", 0), ("shifting", 0), ("baking", 0), ("shifting", 1), ("baking", 1), ("promoting", 1)]
    phases += [("leaving", 1)]
    with FollowedPages(pages, registry, "killed") as fleet:
        for phase, step in phases:
            # Nothing goes on from where it is to be killed.
            fleet.servers_held = phase in ("starting", "promoting")
            fleet.gateway_held = phase in ("shifting", "leaving")
            with _running(prefect_server, run, parameters, tmp_path) as process:
                _until_phase(registry, phase, step, process)
            fleet.servers_held = fleet.gateway_held = False
            call(prefect_server, f"flow_runs/{run}/set_state", {"state": {"type": "PENDING"}, "force": True})
        with _running(prefect_server, run, parameters, tmp_path) as process:
            assert process.wait(_WITHIN) == 0, _log(tmp_path)

    state = registry.state("killed")
    assert state.labels == {"stable": 2} and state.traffic is None
    history = [*reversed(registry.history("killed"))]
    actions = [record.transition.action for record in history]
    assert actions.count("begin") == 1 and actions.count("accept") == 1 and actions.count("resume") == len(phases)
    assert actions.index("shift") < actions.index("accept") < actions.index("finish") == len(actions) - 1
    assert {record.origin.run.id for record in history if record.origin.run} == {run}
    found = call(prefect_server, f"flow_runs/{run}")
    assert found["state"]["type"] == "COMPLETED"


def _create_run(server: PrefectServer, flow: Any, parameters: dict[str, Any]) -> str:
    from prefect.client.orchestration import get_client
    from prefect.states import Pending

    with server.connected(), get_client(sync_client=True) as client:
        return str(client.create_flow_run(flow, parameters=parameters, state=Pending()).id)


@contextlib.contextmanager
def _running(
    server: PrefectServer, run: str, parameters: dict[str, Any], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that executes the run inside the block; at its end it is killed."""
    with (folder / "runs.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _EXECUTE, run, json.dumps(parameters)],
            env={**server.environ(), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _until_phase(registry: Registry, phase: str, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _WITHIN
    began = registry.state("killed").revision
    while True:
        state = registry.state("killed")
        traffic = state.traffic
        # Led by this process: whatever it found, it took up first.
        if traffic and (traffic.phase, traffic.step) == (phase, step) and state.revision > began:
            return
        assert process.poll() is None and time.monotonic() < deadline, (traffic, process.poll())
        time.sleep(0.02)


def _log(folder: Path) -> str:
    return (folder / "runs.log").read_text(errors="replace")[-4000:]
