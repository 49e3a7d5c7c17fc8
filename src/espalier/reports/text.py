"""Plain-text reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from espalier.files import whole_file
from espalier.reports.cross_sections import cross_headline, cross_sections
from espalier.reports.sections import (
    Content,
    Section,
    Table,
    by_ratio,
    counts_line,
    headline,
    model_sections,
    ratio_title,
)

WIDTH = 88


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, the same on every system."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def model_text(analysis: dict[str, Any]) -> str:
    """Write the report of one model from its analysis."""
    lines = [
        *_banner(f"{analysis['model']} ({analysis['kind']}, family {analysis['family']})"),
        counts_line(analysis["all_ratios"]["experiments"]),
        headline(analysis),
        f"Mean accuracy: rule {analysis['acc_mean_rule']}. SD: of the population. n: experiments.",
    ]
    return _finish(lines + _ratios(analysis, model_sections))


def cross_model_text(summary: dict[str, Any]) -> str:
    """Write the report that compares all models from the analysis of the study."""
    lines = [
        *_banner(f"All models of study {summary['study']}"),
        counts_line(summary["all_ratios"]["experiments"]),
        cross_headline(summary),
    ]
    return _finish(lines + _ratios(summary, cross_sections))


def _ratios(content: Content, sections: Callable[[Content], list[Section]]) -> list[str]:
    lines = []
    for _, one in by_ratio(content):
        lines += ["", *_banner(ratio_title(one["pruning_ratio"])), counts_line(one["experiments"])]
        for number, section in enumerate(sections(one), start=1):
            lines += ["", "-" * WIDTH, f"{number}. {section.title}", "-" * WIDTH, *_section(section)]
    return lines


def _section(section: Section) -> list[str]:
    parts = [list(section.paragraphs)] if section.paragraphs else []
    parts += [_table(table) for table in section.tables]
    parts += [list(section.remarks)] if section.remarks else []
    return [line for number, part in enumerate(parts) for line in ([""] if number else []) + part]


def _table(table: Table) -> list[str]:
    align = ["right" if table.is_number(column) else "left" for column in range(len(table.header))]
    return tabulate(table.rows, table.header, tablefmt="simple", colalign=align, disable_numparse=True).splitlines()


def _banner(title: str) -> list[str]:
    return ["=" * WIDTH, title, "=" * WIDTH]


def _finish(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"
