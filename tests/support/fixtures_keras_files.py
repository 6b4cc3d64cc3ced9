"""Saved models as people bring them, good and bad, written once for all workers of a run by a process of its own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import keras_files

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that `keras_files` tells of. Nobody writes into it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / "models"
    with (shared / "models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            written = tmp_path_factory.mktemp("models")
            _write(written)
            written.rename(folder)
    return folder


def _write(folder: Path) -> None:
    # Not in this process: TensorFlow would stay in its memory, and forked workers would inherit its threads.
    written = subprocess.run(
        [sys.executable, "-m", keras_files.__name__, str(folder)],
        cwd=_ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert written.returncode == 0, written.stderr
