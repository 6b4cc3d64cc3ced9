"""The deployments of prefect.yaml on the tests' server, made once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.deployments import deploy
from tests.support.prefect_processes import PrefectServer

_MADE = pytest.StashKey[tuple[PrefectServer, dict[str, dict[str, Any]]]]()


@pytest.fixture
def deployments(request: pytest.FixtureRequest, prefect_server: PrefectServer) -> dict[str, dict[str, Any]]:
    """Every deployment as the server has it, by name, in the pools `default` and `gpu`. No worker polls them yet."""
    made = request.config.stash.get(_MADE, None)
    if made is None or made[0] is not prefect_server:
        made = request.config.stash[_MADE] = (prefect_server, deploy(prefect_server))
    return made[1]
