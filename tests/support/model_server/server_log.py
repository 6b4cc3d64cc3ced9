"""Log lines in the form of the server's, on standard error."""

from __future__ import annotations

import datetime
import sys


def log(severity: str, source: str, message: str) -> None:
    """Writes one line.

    Args:
        severity: `I`, `W` or `E`.
        source: The real server's source file that writes this line, without the number.
        message: The text, often searched for in tests.
    """
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    # One write: several servers and threads share the stream.
    sys.stderr.write(f"{now:%Y-%m-%d %H:%M:%S.%f}: {severity} tensorflow_serving/{source}] {message}\n")
    sys.stderr.flush()
