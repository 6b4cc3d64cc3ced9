"""Tables on stdout. On a terminal they fold to its width; into a pipe each row stays one line.

Manifests, reports and records hold names that somebody else chose, so nothing of them is taken for markup
or reaches the terminal as a control character.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 10_000
_STYLES = {"ok": "green", "passed": "green", "warn": "yellow", "fail": "bold red", "FAILED": "bold red"}


def printable(text: str) -> str:
    """The text with whatever could steer a terminal shown as an escape."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def new_table(*headers: str) -> Table:
    """An empty table; numbers of files and sizes stand to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for header in headers:
        # A path or a digest cut short is of no use: it goes on in the next line.
        table.add_column(header, overflow="fold", justify="right" if header in ("FILES", "SIZE") else "left")
    return table


def add_row(table: Table, *values: object) -> None:
    """Adds a row; a value may have several lines."""
    table.add_row(*(_cell(value) for value in values))


def print_facts(facts: Mapping[str, str]) -> None:
    """Prints a name and a value a line."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(Text(name), _cell(value))
    print_rich(grid)


def print_rich(what: Table | Text) -> None:
    """Prints a table, with an empty line after it, or a text."""
    if sys.stdout.isatty():
        terminal = Console(highlight=False)
        terminal.print(what)
        if isinstance(what, Table):
            terminal.print()
        return
    console = Console(highlight=False, width=_PIPE_WIDTH)
    with console.capture() as capture:
        console.print(what)
    # Cells are padded to their column's width: nothing that a diff or a grep would want to see.
    lines = (line.rstrip() for line in capture.get().splitlines())
    sys.stdout.write("\n".join(lines) + ("\n\n" if isinstance(what, Table) else "\n"))


def _cell(value: object) -> Text:
    lines = str(value).split("\n")
    text = "\n".join(printable(line) for line in lines)
    return Text(text, style=_STYLES.get(text, ""))
