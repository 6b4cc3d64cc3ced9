"""What is light stays light: an agent beside a server must not load TensorFlow or Prefect."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import model_registry

ROOT = Path(model_registry.__file__).parents[1]
HEAVY = ("keras", "prefect", "tensorflow", "tensorflow_serving")
LIGHT = [
    "model_registry",
    *(module.name for module in pkgutil.walk_packages(model_registry.__path__, "model_registry.")),
    "flows.cli",
]

_IMPORT = """
import importlib, sys
names, heavy = sys.argv[1].split(","), sys.argv[2].split(",")
for name in names:
    importlib.import_module(name)
    loaded = [found for found in heavy if found in sys.modules]
    if loaded:
        sys.exit(f"{name} loads {', '.join(loaded)}")
"""


@pytest.mark.parametrize("names", [LIGHT[:-1], LIGHT[-1:]], ids=["model_registry", "flows.cli"])
def test_importing_what_is_light_loads_neither_tensorflow_nor_prefect(names: list[str]) -> None:
    found = _python(_IMPORT, ",".join(names), ",".join(HEAVY))

    assert found.returncode == 0, found.stderr


def test_the_check_notices_a_module_that_is_not_light() -> None:
    found = _python(_IMPORT, "prefect", ",".join(HEAVY))

    assert found.returncode == 1
    assert found.stderr.strip() == "prefect loads prefect"


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # In a process of its own: the one of the tests has loaded everything by now.
    return subprocess.run(
        [sys.executable, "-c", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
