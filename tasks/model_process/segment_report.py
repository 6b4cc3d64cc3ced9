r"""TF-TRT's own account of what it leaves out, which it gives only as a warning in its log.

The report (`segment.cc` of TensorFlow 2.17) looks like this; the first line of a reason counts the nodes:

    TensorRT unsupported/non-converted OP Report:
    \t- Cumsum -> 2x
    \t\t- [Count: 2x] Op type Cumsum is not supported.

It reaches the log only at TF_CPP_MIN_LOG_LEVEL 0 or 1, which TensorFlow reads once, when it first logs: a process
that is to tell reasons is started with `SETTINGS`. Without the report there are no reasons, and nothing else is lost.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SETTINGS: Final[Mapping[str, str]] = {"TF_CPP_MIN_LOG_LEVEL": "1", "TF_TRT_SHOW_DETAILED_REPORT": "1"}

_HEADING = "TensorRT unsupported/non-converted OP Report"
_OP = re.compile(r"\t- (\S+) -> (\d+)x")
_REASON = re.compile(r"\t\t- \[Count: (\d+)x\] (.+)")
_RULE = "#" * 80
_LONGEST = 200
_STDERR = 2
_LAST_WORDS = 5.0  # seconds


def reasons(log: str) -> dict[str, str]:
    """Why each op is left out, by op: the reason most of its nodes have; empty without a report."""
    found: dict[str, tuple[int, str]] = {}
    op = ""
    for line in log[log.rfind(_HEADING) :].splitlines() if _HEADING in log else ():
        if line.startswith(_RULE):
            break
        if heading := _OP.match(line):
            op = heading[1]
        elif op and (reason := _REASON.match(line)):
            count = int(reason[1])
            if count > found.get(op, (0, ""))[0]:
                found[op] = count, reason[2].strip().rstrip(".")[:_LONGEST]
    return {name: reason for name, (_, reason) in found.items()}


@contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Gathers what native code writes to the standard error of this process, which is written there all the same.

    File descriptor 2 is replaced for all threads meanwhile, so this is for a process that does nothing else. A `tee`
    stands in between: it outlives a process that native code aborts, whose last words say why.

    Returns:
        A function that gives what was written, once the block is left; nothing if there is no `tee`.
    """
    program = shutil.which("tee")
    if program is None:
        yield str
        return
    with tempfile.TemporaryDirectory() as directory:
        gathered, text = Path(directory) / "log", ""
        # In a group of its own: whoever ends this process's group must not cut the last words.
        tee = subprocess.Popen([program, gathered], stdin=subprocess.PIPE, stdout=_STDERR, start_new_session=True)
        assert tee.stdin is not None
        before = os.dup(_STDERR)
        os.dup2(tee.stdin.fileno(), _STDERR)
        tee.stdin.close()
        try:
            yield lambda: text
        finally:
            os.dup2(before, _STDERR)
            os.close(before)
            try:
                tee.wait(_LAST_WORDS)
            except subprocess.TimeoutExpired:  # something that was started meanwhile holds the pipe
                tee.kill()
                tee.wait()
            text = gathered.read_text(errors="replace") if gathered.is_file() else ""
