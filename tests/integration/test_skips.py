"""A skip is a reason on a person's machine and a failure under CI, for else a missing service looks like a pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SKIPS = {
    "call": "import pytest\ndef test_it(): pytest.skip('no such service')\n",
    "setup": "import pytest\n@pytest.mark.skipif(True, reason='no such service')\ndef test_it(): pass\n",
    "collection": "import pytest\npytest.skip('no such service', allow_module_level=True)\n",
}
ALLOWED = {
    "gpu": "import pytest\n@pytest.mark.gpu\ndef test_it(): pytest.skip('no GPU')\n",
    "expected failure": "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n",
}


@pytest.mark.parametrize("where", SKIPS)
def test_a_skip_under_ci_fails_the_run_and_says_why(tmp_path: Path, where: str) -> None:
    found = _run(tmp_path, SKIPS[where], ci="true")

    assert found.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED), found.stdout
    assert "no such service" in found.stdout
    assert "Nothing but `gpu` may skip under CI" in found.stdout


@pytest.mark.parametrize("kind", ALLOWED)
def test_a_gpu_skip_and_an_expected_failure_pass_under_ci(tmp_path: Path, kind: str) -> None:
    found = _run(tmp_path, ALLOWED[kind], ci="true")

    assert found.returncode == pytest.ExitCode.OK, found.stdout


@pytest.mark.parametrize("ci", ["", "false"])
def test_a_skip_on_a_persons_machine_is_no_failure(tmp_path: Path, ci: str) -> None:
    found = _run(tmp_path, SKIPS["call"], ci=ci)

    assert found.returncode == pytest.ExitCode.OK, found.stdout
    assert "1 skipped" in found.stdout


def _run(folder: Path, text: str, *, ci: str) -> subprocess.CompletedProcess[str]:
    test = folder / "test_sample.py"
    test.write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-c", ROOT / "pyproject.toml", "--rootdir", folder, test],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
