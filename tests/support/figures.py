"""The figures that `make soak` prints, for docs/reliability.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol

Row = Mapping[str, object]


class Figures(Protocol):
    """Notes one row of a table; its cells are named by keywords."""

    def __call__(self, table: str, **cells: object) -> None: ...


def as_markdown(rows: Iterable[tuple[str, Row]]) -> str:
    """All tables, each with the columns that any of its rows has."""
    tables: dict[str, list[Row]] = defaultdict(list)
    for table, row in rows:
        tables[table].append(row)
    return "\n\n".join(_as_table(name, tables[name]) for name in sorted(tables))


def _as_table(name: str, rows: list[Row]) -> str:
    columns = [*dict.fromkeys(column for row in rows for column in row)]
    lines = sorted([str(row.get(column, 0)) for column in columns] for row in rows)
    totals = [_total([row.get(column, 0) for row in rows]) for column in columns]
    table = (columns, ["---"] * len(columns), *lines, totals)
    return "\n".join([f"### {name}", "", *(f"| {' | '.join(line)} |" for line in table)])


def _total(cells: list[object]) -> str:
    numbers = [cell for cell in cells if isinstance(cell, int)]
    return f"**{sum(numbers)}**" if len(numbers) == len(cells) else ""
