"""The contracts of import-linter are kept, and `make check` asks for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_layer_contract_is_kept() -> None:
    lint = Path(sys.executable).with_name("lint-imports")

    found = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout + found.stderr


def test_make_check_runs_linters_types_and_layers() -> None:
    found = subprocess.run(["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True)

    for command in ("ruff check", "ruff format --check", "mypy", "lint-imports"):
        assert command in found.stdout
