"""Transfers as a person watches them: a bar with bytes and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from model_registry.progress import Listener, Transfer, listening

logger = logging.getLogger("slipway")

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def showing_transfers(*, quiet: bool) -> Iterator[None]:
    """Shows the transfers of a command on stderr.

    Args:
        quiet: Shows none, as for `--json`.
    """
    if quiet:
        yield
    elif sys.stderr.isatty():
        with _bars() as listener, listening(listener):
            yield
    else:
        with listening(Lines()):
            yield


class Lines:
    """Logs a line for a transfer that has been going on for a while, and another every ten seconds."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, transfer: Transfer) -> None:
        """Takes a step of a transfer."""
        now = time.monotonic()
        if now - self._last.setdefault(transfer.what, now) >= _SECONDS_BETWEEN_LINES:
            self._last[transfer.what] = now
            logger.info("%s: %s", transfer.what, in_words(transfer))


def in_words(transfer: Transfer) -> str:
    """How far it is, as `41.9 of 102.0 MB, 41 %`."""
    share = 100 * transfer.done / transfer.total if transfer.total else 100
    return f"{transfer.done / 1e6:,.1f} of {transfer.total / 1e6:,.1f} MB, {share:.0f} %"


@contextmanager
def _bars() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    # What goes to stdout passes by the bars if both are the same terminal; into a pipe or a file it goes as it is.
    same = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=same) as bars:
        tasks: dict[str, TaskID] = {}

        def show(transfer: Transfer) -> None:
            if transfer.what not in tasks:
                tasks[transfer.what] = bars.add_task(transfer.what, total=transfer.total)
            bars.update(tasks[transfer.what], completed=transfer.done, visible=transfer.done < transfer.total)

        yield show
