"""Pages that a test states, and a Prometheus that scrapes them; both for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.metrics_page import MetricsPages
from tests.support.prometheus_server import PrometheusServer


@pytest.fixture(scope="module")
def pages() -> Iterator[MetricsPages]:
    """Pages, none at first."""
    with MetricsPages() as pages:
        yield pages


@pytest.fixture(scope="module")
def prometheus(
    prometheus_program: Path, pages: MetricsPages, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    """What scrapes them."""
    assert prometheus_program.exists()
    with PrometheusServer(pages.config(), tmp_path_factory.mktemp("prometheus")) as server:
        yield server
