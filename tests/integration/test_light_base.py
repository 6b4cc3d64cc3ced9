"""What the command line does where only the light base is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# An entry of None makes a module impossible to find, as it is where it was never installed.
_WITHOUT_PIPELINE = """
import sys
for name in ("tensorflow", "keras", "numpy", "prefect"):
    sys.modules[name] = None
from flows.cli import main
main(sys.argv[1:])
"""


def slipway(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT_PIPELINE, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_listing_an_empty_registry_needs_no_pipeline(tmp_path: Path) -> None:
    done = slipway(tmp_path, "list")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_packaging_says_what_to_install_and_leaves_nothing(tmp_path: Path, options: tuple[str, ...]) -> None:
    model = tmp_path / "saved"
    (model / "variables").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"\x08\x01")

    done = slipway(tmp_path, "package", "saved", *options)

    assert done.returncode == 1
    assert "pip install 'slipway[pipeline]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "registry").exists()
