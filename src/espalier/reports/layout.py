"""Layout of plain-text reports, and writing of text files."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from espalier.files import atomic_file
from espalier.reports.sections.types import Table

TEXT_WIDTH = 88


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically, with the same line endings on every system."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def banner(title: str, width: int = TEXT_WIDTH) -> list[str]:
    """Return a title between two rules."""
    return ["=" * width, title, "=" * width]


def table_lines(table: Table) -> list[str]:
    """Return the lines of a table, with its caption above."""
    align = ["right" if table.is_number(column) else "left" for column in range(len(table.header))]
    lines = tabulate(table.rows, table.header, tablefmt="simple", colalign=align, disable_numparse=True).splitlines()
    return [table.caption, *lines] if table.caption else lines
