"""How plain text is laid out, and written."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from espalier.files import whole_file
from espalier.reports.sections.base import Table

WIDTH = 88


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, the same on every system."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def banner(title: str, width: int = WIDTH) -> list[str]:
    """Make a title between two lines."""
    return ["=" * width, title, "=" * width]


def table_lines(table: Table) -> list[str]:
    """Write a table with its caption above."""
    align = ["right" if table.is_number(column) else "left" for column in range(len(table.header))]
    lines = tabulate(table.rows, table.header, tablefmt="simple", colalign=align, disable_numparse=True).splitlines()
    return [table.caption, *lines] if table.caption else lines
