"""The line of an exception that says what happened.

Keras wraps what a layer raises into "Exception encountered when calling ...", colours the cause with
terminal codes and lists the arguments below it, or puts it behind the whole configuration of the model;
TensorFlow puts "Graph execution error:" on top.
"""

from __future__ import annotations

import re

_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*m")
_WRAPPING = re.compile(
    r"Exception encountered when calling|Graph execution error|Detected at node|in user code:|A total of \d+ objects"
)
_CAUSE = re.compile(r"Exception encountered: (.+)")
_LONGEST = 400


def reason(error: BaseException) -> str:
    """The exception's class and the first line of its text that is no wrapping."""
    text = _TERMINAL_CODE.sub("", str(error))
    causes = _CAUSE.findall(text)
    lines = causes[-1:] or [line.strip() for line in text.splitlines()]
    telling = next((line for line in lines if line and not _WRAPPING.match(line)), "no message")
    return f"{type(error).__name__}: {telling[:_LONGEST]}"
