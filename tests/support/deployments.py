"""Deploys prefect.yaml to a server of the tests, and runs what it deploys."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.prefect_api import asked, call, until
from tests.support.prefect_processes import PrefectServer

ROOT = Path(__file__).parents[2]

_OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def deploy(server: PrefectServer) -> dict[str, dict[str, Any]]:
    """Creates or updates all deployments as people do, and returns them as the server has them, by name."""
    there = {pool["name"] for pool in asked(server, "work_pools")}
    for pool in {"default", "gpu"} - there:
        call(server, "work_pools/", {"name": pool, "type": "process"})
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        env=server.environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {found["name"]: found for found in asked(server, "deployments")}


def start_run(server: PrefectServer, deployment: dict[str, Any], **parameters: Any) -> str:
    """Creates a run of a deployment and returns its id."""
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return str(call(server, f"deployments/{deployment['id']}/create_flow_run", body)["id"])


def runs_of(server: PrefectServer, deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of a deployment, the last one first."""
    return asked(server, "flow_runs", deployments={"id": {"any_": [deployment["id"]]}}, sort="EXPECTED_START_TIME_DESC")


def state_of(server: PrefectServer, run: str) -> str:
    """A run's state, as SCHEDULED."""
    return str(call(server, f"flow_runs/{run}")["state"]["type"])


@contextmanager
def paused(server: PrefectServer, pool: str) -> Iterator[None]:
    """Lets a pool's workers take no more runs meanwhile."""
    call(server, f"work_pools/{pool}", {"is_paused": True}, "PATCH")
    try:
        yield
    finally:
        call(server, f"work_pools/{pool}", {"is_paused": False}, "PATCH")


def finished(server: PrefectServer, run: str) -> dict[str, Any]:
    """Waits until a run is over."""
    until(lambda: state_of(server, run) in _OVER, f"the run {run} is over")
    found = call(server, f"flow_runs/{run}")
    assert isinstance(found, dict)
    return found


def logs_of(server: PrefectServer, run: str) -> str:
    """What a run logged."""
    return "\n".join(log["message"] for log in asked(server, "logs", logs={"flow_run_id": {"any_": [run]}}))
