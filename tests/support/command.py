"""Runs `slipway` as people do, in a process of its own, and tells what became of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SLIPWAY = str(Path(sys.executable).with_name("slipway"))
_WITHIN = 20.0


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        code: Its exit code.
        stdout: What it printed.
        stderr: What it said.
    """

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        document = json.loads(self.stdout)
        assert isinstance(document, dict)
        return document

    @property
    def error(self) -> dict[str, str]:
        """The error of a command that failed."""
        error = self.document["error"]
        assert list(error) == ["class", "message", "hint"]
        return error  # type: ignore[no-any-return]


def slipway(
    *arguments: str | Path,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    wrapper: list[str] | None = None,
    timeout: float = 120,
) -> Outcome:
    """Runs a command.

    Args:
        arguments: What follows `slipway`.
        folder: Where; temporary files go into `tmp` beside it.
        environ: Its whole environment; the tests' own when left out.
        wrapper: A command that runs it, such as `unshare`.
        timeout: Seconds it may take.
    """
    done = subprocess.run(
        [*(wrapper or []), SLIPWAY, *map(str, arguments)],
        cwd=folder,
        env={**(os.environ if environ is None else environ), "TMPDIR": str(scratch_of(folder))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def scratch_of(folder: Path) -> Path:
    """Where a command's temporary files go."""
    scratch = folder.with_name(f"{folder.name}-tmp")
    scratch.mkdir(exist_ok=True)
    return scratch


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that lies below a folder, and what the files hold."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def assert_no_process_in(folder: Path) -> None:
    """Fails if a process that works below a folder stays. A child notices the end of its parent a moment later."""
    deadline = time.monotonic() + _WITHIN
    while left := [process for process in psutil.process_iter(["cwd", "cmdline"]) if _works_in(process, folder)]:
        assert time.monotonic() < deadline, [process.info for process in left]
        time.sleep(0.05)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    cwd = process.info["cwd"]
    return bool(cwd) and process.pid != os.getpid() and Path(cwd.removesuffix(" (deleted)")).is_relative_to(folder)
