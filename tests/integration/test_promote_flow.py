"""The flow promote-model on a real Prefect server: what it moves, and what it leaves for those who look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_registry.errors import ConflictError, NotFoundError
from model_registry.registry import Registry
from model_registry.state import Origin
from model_registry.storage import open_store
from tests.support.drafts import make_draft, make_payload
from tests.support.prefect_api import artifacts_since, asked, ids
from tests.support.prefect_processes import PrefectServer

pytestmark = pytest.mark.xdist_group("prefect")


def test_a_promotion_is_recorded_with_its_flow_run_and_shown_in_prefect(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    from flows.promote_model import promote_model

    registry = Registry(open_store(str(tmp_path / "registry")))
    for identity in ("a1", "a2"):
        registry.publish(make_draft(identity=identity), {"native": make_payload(tmp_path / "payload")})
    registry.promote("digits", 1, "stable", origin=Origin("ann@build-7"))
    url = registry.store.uri
    before, runs_before = ids(prefect_server, "artifacts"), ids(prefect_server, "flow_runs")

    with prefect_server.connected():
        change = promote_model("digits", 2, "stable", expect=1, reason="faster", registry=url)

    (run,) = [run for run in asked(prefect_server, "flow_runs") if run["id"] not in runs_before]
    assert run["state"]["type"] == "COMPLETED"
    newest, _ = registry.history("digits")
    assert newest.origin.run is not None
    assert (newest.origin.run.id, newest.origin.run.name, newest.origin.why) == (run["id"], run["name"], "faster")
    assert change["run"]["id"] == run["id"]
    assert (change["from"], change["to"], change["revision"], change["changed"]) == (1, 2, 2, True)
    artifacts = artifacts_since(prefect_server, before)
    assert list(artifacts) == ["digits-labels"]
    assert artifacts["digits-labels"]["description"] == "digits@stable: digits:1 -> digits:2 (revision 2)"
    assert json.loads(artifacts["digits-labels"]["data"]) == [{"label": "stable", "version": 2, "rolls back to": 1}]

    with prefect_server.connected():
        again = promote_model("digits", 2, "stable", registry=url)
        with pytest.raises(ConflictError, match="expected it to name nothing, found digits:2"):
            promote_model("digits", 1, "stable", expect="none", registry=url)
        with pytest.raises(NotFoundError, match="digits:7 does not exist"):
            promote_model("digits", 7, "stable", registry=url)

    assert (again["changed"], again["revision"]) == (False, None)
    assert registry.state("digits").revision == 2
    failed = [run for run in asked(prefect_server, "flow_runs") if run["id"] not in runs_before][-2:]
    assert [run["run_count"] for run in failed] == [1, 1]
