"""The Prefect server and worker that other tests stand on do what those tests take for granted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fixtures_prefect import PrefectServer, StartWorker

pytestmark = pytest.mark.xdist_group("prefect-workers")

_FLOW = """
from pathlib import Path
from prefect import flow

@flow
def hello(answer: str) -> None:
    Path(answer).write_text("from the worker")
"""

_DEPLOY_AND_RUN = """
import sys
from prefect import flow
from prefect.deployments import run_deployment

folder, pool, answer = sys.argv[1:]
loaded = flow.from_source(source=folder, entrypoint="hello_flow.py:hello")
loaded.deploy(name="test", work_pool_name=pool, print_next_steps=False, build=False, push=False)
run = run_deployment("hello/test", parameters={"answer": answer}, timeout=120, poll_interval=1)
assert run.state.is_completed(), run.state
"""


def test_a_worker_runs_a_deployed_flow_and_the_server_tells_of_it(
    prefect_server: PrefectServer, prefect_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "hello_flow.py").write_text(_FLOW)
    answer = tmp_path / "answer.txt"
    worker = prefect_worker("fixtures")

    deployed = subprocess.run(
        [sys.executable, "-c", _DEPLOY_AND_RUN, str(tmp_path), worker.pool, str(answer)],
        env=prefect_server.environ(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert deployed.returncode == 0, f"{deployed.stdout}{deployed.stderr}\n{worker.log.read_text()}"
    assert answer.read_text() == "from the worker"
    runs = prefect_server.client.post("flow_runs/filter", json={}).json()
    assert [run["state_type"] for run in runs if run["work_pool_name"] == worker.pool] == ["COMPLETED"]
