"""The clock of a file system, which on a network mount is the server's and not this machine's."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from model_registry.storage.durable import temporary_name

_FRESH = 10.0


class FileClock:
    """Tells the time by what a file system writes into a file that is touched now.

    A reader without the right to write gets this machine's time: it ends nobody's claim by it.
    """

    def __init__(self, directory: Path, touched: str) -> None:
        """Asks nothing yet.

        Args:
            directory: On the file system. It is never made.
            touched: Name of a file in it that may be touched, if it is there; else a temporary one is made.
        """
        self._directory = directory
        self._touched = directory / touched
        self._lock = threading.Lock()
        self._asked = 0.0
        self._ahead: float | None = None

    def age(self, found: os.stat_result) -> float:
        """Seconds since a file was written."""
        return max(0.0, self.now() - found.st_mtime)

    def now(self) -> float:
        """Seconds since the epoch, by the file system's clock; asked anew every ten seconds."""
        with self._lock:
            elapsed = time.monotonic()
            if self._ahead is None or elapsed - self._asked > _FRESH:
                self._asked = elapsed
                self._ahead = self._ask() - elapsed
            return elapsed + self._ahead

    def _ask(self) -> float:
        try:
            try:
                os.utime(self._touched, follow_symlinks=False)  # without a time it is the server that sets one
                return self._touched.lstat().st_mtime
            except (FileNotFoundError, PermissionError):
                return self._touch_another()
        except OSError:
            return time.time()

    def _touch_another(self) -> float:
        path = self._directory / temporary_name()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
