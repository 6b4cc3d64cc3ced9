"""What every test runs in: a home of its own, nobody's credentials, no GPU, no telemetry.

The environment is set when this file is imported, before anything reads it; processes that tests
start inherit it.
"""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

_SUPPORT = Path(__file__).parent / "support"
pytest_plugins = [f"tests.support.{fixtures.stem}" for fixtures in sorted(_SUPPORT.glob("fixtures_*.py"))]

# What the machine provides: the interpreter of the S3 server, and a real TensorFlow Serving instead of the tests' own.
_KEPT = {"SLIPWAY_S3_SERVER_PYTHON", "SLIPWAY_TF_SERVING"}

_HOME = tempfile.TemporaryDirectory(prefix="slipway-tests-", ignore_cleanup_errors=True)


def _isolate(home: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "PREFECT_", "SLIPWAY_")) and name not in _KEPT:
            del os.environ[name]
    # What tests start imports the project's modules again and again: compiled once is enough.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.update(
        HOME=str(home),
        PREFECT_HOME=str(home / ".prefect"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
        # An unset region or key must fail a test at once, not ask a cloud's metadata address first.
        AWS_EC2_METADATA_DISABLED="true",
        KERAS_BACKEND="tensorflow",
        CUDA_VISIBLE_DEVICES="-1",
        TF_CPP_MIN_LOG_LEVEL="3",
        # Tests run side by side; a pool of threads for each core in each of them would only queue.
        TF_NUM_INTRAOP_THREADS="1",
        TF_NUM_INTEROP_THREADS="1",
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        # Servers of the tests are on loopback, whatever proxy the person is behind.
        NO_PROXY="127.0.0.1,localhost",
        no_proxy="127.0.0.1,localhost",
    )


_isolate(Path(_HOME.name))

# What a shell starts in the background ignores SIGINT, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about who else uses the two cores than about what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_unconfigure() -> None:
    """Removes the home. Each worker of pytest-xdist has its own."""
    _HOME.cleanup()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects the tests without looking for garbage, and never looks among them again.

    Nearly all that is made until then stays to the end: TensorFlow, Prefect and some thousand tests, through which
    Python would go time and again, in each worker.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _under_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason}\nNothing but `gpu` may skip under CI: provide what it lacks."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip under CI is a failure, or a missing service would look like a pass."""
    report = yield
    expected_failure = hasattr(report, "wasxfail")
    if report.skipped and not expected_failure and _under_ci() and not item.get_closest_marker("gpu"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself whole."""
    report = yield
    if report.skipped and _under_ci():
        _refuse_skip(report)
    return report


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A file's content is no name for a test: it is long, and a zip file tells the time, so that workers disagree."""
    return argname if isinstance(val, bytes) and len(val) > 40 else None
