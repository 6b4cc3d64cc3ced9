"""The deployments of prefect.yaml on the tests' server, made once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.deployments import deploy
from tests.support.prefect_processes import PrefectServer


@pytest.fixture(scope="session")
def deployments(prefect_server: PrefectServer) -> dict[str, dict[str, Any]]:
    """Every deployment as the server has it, by name, in the pools `default` and `gpu`. No worker polls them yet."""
    return deploy(prefect_server)
