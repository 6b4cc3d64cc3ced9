"""What takes seconds to make, made once for all workers of a run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder of a name that all workers share. Nobody writes into it.

    Args:
        tmp_path_factory: The worker's.
        name: The folder's; who gives the same name means the same content.
        make: Fills an empty folder. It is called by the worker that comes first; the others wait.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            made = tmp_path_factory.mktemp(name)
            make(made)
            made.rename(folder)
    return folder
