"""The end of what a child prints: kept in memory, safe on a terminal.

It is read as it comes. In a file, a model that prints in a loop would fill the registry's disk.
"""

from __future__ import annotations

import os
import re
import threading
from typing import IO

_BYTES = 16_384
_LINES = 15
_LINE = 500  # characters
_LAST_WORDS = 2.0  # seconds; all writers are dead by then, but for one that left the child's process group

# A terminal would obey these, and the text is the model's to choose.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Replaces what a terminal would not print but obey; line feeds and tabs stay."""
    return _CONTROLS.sub("?", text)


class LogTail:
    """Reads a pipe to its end, in a thread of its own."""

    def __init__(self, pipe: IO[bytes]) -> None:
        """Begins to read; the pipe is closed at its end."""
        self._kept = b""
        self._reader = threading.Thread(target=self._read, args=(pipe,), name="log-tail", daemon=True)
        self._reader.start()

    def finish(self) -> None:
        """Waits for what is still on its way. To be called when the writers are dead."""
        self._reader.join(_LAST_WORDS)

    def text(self) -> str:
        """The last lines so far."""
        # By line feeds alone; of a progress bar, which goes back to the start of its line, the last state.
        text = self._kept.decode(errors="replace").rstrip("\n")
        lines = [printable(line.rstrip("\r").rsplit("\r", 1)[-1]) for line in text.split("\n")]
        return "\n".join(line[:_LINE] for line in lines[-_LINES:])

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := os.read(pipe.fileno(), 65_536):
                self._kept = (self._kept + chunk)[-_BYTES:]
