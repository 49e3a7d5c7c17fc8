"""Layout of plain-text reports."""

from __future__ import annotations

from tabulate import tabulate

from espalier.reports.sections.types import Table

TEXT_WIDTH = 88


def banner(title: str, width: int = TEXT_WIDTH) -> list[str]:
    """Return a title between two rules."""
    return ["=" * width, title, "=" * width]


def table_lines(table: Table) -> list[str]:
    """Return the lines of a table, with its caption above."""
    align = ["right" if table.is_number(column) else "left" for column in range(len(table.header))]
    lines = tabulate(table.rows, table.header, tablefmt="simple", colalign=align, disable_numparse=True).splitlines()
    return [table.caption, *lines] if table.caption else lines
