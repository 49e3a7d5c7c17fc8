"""Building blocks of report sections.

`espalier.reports.text` and `espalier.reports.html` lay out the same sections, so both reports have the same content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Content = Mapping[str, Any]
"""Part of the JSON content of an analysis."""


@dataclass(frozen=True)
class Table:
    """A table of formatted cells.

    Attributes:
        header: Titles of the columns.
        rows: Cells of each row.
        text_columns: Indices of the columns that hold text; the others hold numbers.
        caption: Caption; may be empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: Sequence[int] = (0,)
    caption: str = ""

    def is_number(self, column: int) -> bool:
        """Return whether a column holds numbers. These columns are aligned right."""
        return column not in self.text_columns


@dataclass(frozen=True)
class ReportSection:
    """A numbered section of a report.

    Attributes:
        title: Title.
        paragraphs: Paragraphs before the tables.
        tables: Tables.
        items: A list after the tables.
        remarks: Paragraphs after the list.
        figures: Names of the figures of the section.
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    remarks: Sequence[str] = ()
    figures: Sequence[str] = ()
    items: Sequence[str] = ()


@dataclass(frozen=True)
class Overview:
    """Main results: sentences that the data support, open questions, and the tables that answer first."""

    supported: Sequence[str]
    open_questions: Sequence[str]
    tables: Sequence[Table] = ()
