"""Saved models as people bring them, good and bad, written once for all workers of a run by a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import keras_files
from tests.support.made_once import made_once

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that `keras_files` tells of. Nobody writes into it."""
    return made_once(tmp_path_factory, "models", _write)


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
