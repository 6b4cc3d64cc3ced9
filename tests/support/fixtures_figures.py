"""Long runs, which only `make soak` makes, and the figures that come out of them."""

from __future__ import annotations

import time

import pytest

from tests.support.figures import Figures, as_markdown

_PROPERTY = "figures"


def _soaking(config: pytest.Config) -> bool:
    return "soak" in config.option.markexpr


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the long runs out, without a word: a skip would be a failure under CI."""
    if _soaking(config):
        return
    left_out = [item for item in items if item.get_closest_marker("soak")]
    items[:] = [item for item in items if not item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def figures(record_property: pytest.FixtureRequest) -> Figures:
    """Notes what a test counted, and how long it took."""
    began = time.monotonic()

    def note(table: str, **cells: object) -> None:
        record_property(_PROPERTY, (table, {**cells, "seconds": round(time.monotonic() - began)}))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the figures of what passed."""
    passed = terminalreporter.stats.get("passed", [])
    rows = [value for report in passed for name, value in report.user_properties if name == _PROPERTY]
    if rows and _soaking(config):
        terminalreporter.section("figures")
        terminalreporter.write_line(as_markdown(rows))
