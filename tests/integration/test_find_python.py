"""Set-up finds a Python that TensorFlow 2.17 has wheels for, or says what to install."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FIND_PYTHON = Path(__file__).parents[2] / "requirements" / "find-python"

# What the script asks of a candidate: its version, whether it can make environments, where it lies.
INTERPRETER = """#!/bin/sh
case $2 in
*version_info*) echo {version} ;;
*ensurepip*) exit {no_venv} ;;
*executable*) echo "$0" ;;
esac
"""
BROKEN_SHIM = "#!/bin/sh\necho 'command not found' >&2\nexit 127\n"


def test_a_shim_that_leads_nowhere_is_passed_over(tmp_path: Path) -> None:
    _install(tmp_path / "python3.12", BROKEN_SHIM)
    _install(tmp_path / "python3.11", INTERPRETER.format(version="3.11", no_venv=0))

    found = _find(tmp_path)

    assert found.stdout.strip() == str(tmp_path / "python3.11")


def test_a_python_without_ensurepip_is_passed_over_for_one_that_has_it(tmp_path: Path) -> None:
    _install(tmp_path / "python3.12", INTERPRETER.format(version="3.12", no_venv=1))
    _install(tmp_path / "python3.11", INTERPRETER.format(version="3.11", no_venv=0))

    found = _find(tmp_path)

    assert found.stdout.strip() == str(tmp_path / "python3.11")


@pytest.mark.parametrize(
    ("version", "no_venv", "told"),
    [("3.13", 0, "is 3.13"), ("3.9", 0, "is 3.9"), ("3.11", 1, "apt-get install python3.11-venv")],
)
def test_a_python_that_will_not_do_is_refused_with_what_to_install(
    tmp_path: Path, version: str, no_venv: int, told: str
) -> None:
    python = _install(tmp_path / "python", INTERPRETER.format(version=version, no_venv=no_venv))

    found = _find(tmp_path, PYTHON=str(python))

    assert found.returncode == 1
    assert found.stdout == ""
    assert told in found.stderr
    assert "3.10, 3.11 or 3.12" in found.stderr


def _install(path: Path, script: str) -> Path:
    path.write_text(script)
    path.chmod(0o755)
    return path


def _find(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FIND_PYTHON],
        env={"PATH": f"{folder}:/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
