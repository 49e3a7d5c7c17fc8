"""Plain-text reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.files import atomic_file
from espalier.reports.figures.vega import Figure, pdf_of, svg_of
from espalier.reports.layout import WIDTH, banner, table_lines, write_text
from espalier.reports.messages import Words
from espalier.reports.sections.base import (
    Overview,
    ReportSection,
    by_ratio,
    counts_line,
    headline,
    notes,
    overview,
    ratio_title,
)
from espalier.reports.sections.cross import cross_headline, cross_overview, cross_sections, failed_jobs
from espalier.reports.sections.model import model_sections


def write_figures(figures: Sequence[Figure], paths: Mapping[str, Path]) -> None:
    """Write each figure as SVG and PDF.

    Args:
        figures: Figures to write.
        paths: Output paths by file name, `{name}.svg` and `{name}.pdf` for each figure.
    """
    for figure in figures:
        svg = svg_of(figure)
        write_text(paths[f"{figure.name}.svg"], svg)
        with atomic_file(paths[f"{figure.name}.pdf"]) as temporary:
            temporary.write_bytes(pdf_of(svg))


def model_text(analysis: dict[str, Any], language: str = "en") -> str:
    """Return the plain-text report of one model.

    Args:
        analysis: Analysis of the model.
        language: Language code, `en` or `zh`.
    """
    words = Words(language)
    name, kind = analysis["model"], words(f"kind.{analysis['kind']}")
    title = words("title.model", model=name, model_upper=name.upper(), kind=kind, family=analysis["family"])
    lines = [
        *banner(title),
        counts_line(words, analysis["all_ratios"]["experiments"]),
        headline(words, analysis),
        *notes(words, analysis),
        *_overview(words, overview(words, analysis)),
    ]
    for _, one in by_ratio(analysis):
        lines += _ratio(words, one, model_sections(words, analysis, one))
    return _finish(lines)


def cross_model_text(summary: dict[str, Any], language: str = "en") -> str:
    """Return the plain-text report that compares all models.

    Args:
        summary: Cross-model analysis of the study.
        language: Language code, `en` or `zh`.
    """
    words = Words(language)
    lines = [
        *banner(words("title.cross", study=summary["study"])),
        counts_line(words, summary["all_ratios"]["experiments"]),
        cross_headline(words, summary),
        *failed_jobs(words, summary),
        *_overview(words, cross_overview(words, summary)),
    ]
    for _, one in by_ratio(summary):
        lines += _ratio(words, one, cross_sections(words, one))
    return _finish(lines)


def _overview(words: Words, of: Overview) -> list[str]:
    lines = []
    for code, sentences in (("overview.supported", of.supported), ("overview.open", of.open)):
        shown = sentences or [words("overview.nothing")]
        lines += ["", words(code), *(f"  • {sentence}" for sentence in shown)]
    return lines


def _ratio(words: Words, content: Any, sections: Sequence[ReportSection]) -> list[str]:
    lines = ["", *banner(ratio_title(words, content["pruning_ratio"])), counts_line(words, content["experiments"])]
    for number, section in enumerate(sections, start=1):
        lines += ["", "-" * WIDTH, f"{number}. {section.title}", "-" * WIDTH, *_section(section)]
    return lines


def _section(section: ReportSection) -> list[str]:
    parts = [list(section.paragraphs)] if section.paragraphs else []
    parts += [table_lines(table) for table in section.tables]
    parts += [list(section.remarks)] if section.remarks else []
    return [line for number, part in enumerate(parts) for line in ([""] if number else []) + part]


def _finish(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"
