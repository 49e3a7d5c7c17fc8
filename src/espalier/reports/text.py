"""Plain-text reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from espalier.reports.layout import TEXT_WIDTH, banner, table_lines
from espalier.reports.messages import Texts
from espalier.reports.sections.cross import cross_headline, cross_notes, cross_overview, cross_sections
from espalier.reports.sections.introduction import by_ratio, counts_line, headline, notes, overview, ratio_title
from espalier.reports.sections.model import model_sections
from espalier.reports.sections.types import Overview, ReportSection


def model_text(analysis: dict[str, Any], language: str = "en") -> str:
    """Return the plain-text report of one model.

    Args:
        analysis: Analysis of the model.
        language: Language code, `en` or `zh`.
    """
    texts = Texts(language)
    name, kind = analysis["model"], texts(f"kind.{analysis['kind']}")
    title = texts("title.model", model=name, model_upper=name.upper(), kind=kind, family=analysis["family"])
    lines = [
        *banner(title),
        counts_line(texts, analysis["all_ratios"]["experiments"]),
        headline(texts, analysis),
        *notes(texts, analysis),
        *_overview_lines(texts, overview(texts, analysis)),
    ]
    for _, one in by_ratio(analysis):
        lines += _ratio_lines(texts, one, model_sections(texts, analysis, one))
    return _join_lines(lines)


def cross_model_text(summary: dict[str, Any], language: str = "en") -> str:
    """Return the plain-text report that compares all models.

    Args:
        summary: Cross-model analysis of the study.
        language: Language code, `en` or `zh`.
    """
    texts = Texts(language)
    lines = [
        *banner(texts("title.cross", study=summary["study"])),
        counts_line(texts, summary["all_ratios"]["experiments"]),
        cross_headline(texts, summary),
        *cross_notes(texts, summary),
        *_overview_lines(texts, cross_overview(texts, summary)),
    ]
    for _, one in by_ratio(summary):
        lines += _ratio_lines(texts, one, cross_sections(texts, one))
    return _join_lines(lines)


def _overview_lines(texts: Texts, content: Overview) -> list[str]:
    lines = []
    for code, sentences in (("overview.supported", content.supported), ("overview.open", content.open_questions)):
        shown_sentences = sentences or [texts("overview.nothing")]
        lines += ["", texts(code), *(f"  • {sentence}" for sentence in shown_sentences)]
    for table in content.tables:
        lines += ["", *table_lines(table)]
    return lines


def _ratio_lines(texts: Texts, content: Any, sections: Sequence[ReportSection]) -> list[str]:
    lines = ["", *banner(ratio_title(texts, content["pruning_ratio"])), counts_line(texts, content["experiments"])]
    for number, section in enumerate(sections, start=1):
        lines += ["", "-" * TEXT_WIDTH, f"{number}. {section.title}", "-" * TEXT_WIDTH, *_section_lines(section)]
    return lines


def _section_lines(section: ReportSection) -> list[str]:
    parts = [list(section.paragraphs)] if section.paragraphs else []
    parts += [table_lines(table) for table in section.tables]
    parts += [[f"  • {item}" for item in section.items]] if section.items else []
    parts += [list(section.remarks)] if section.remarks else []
    return [line for number, part in enumerate(parts) for line in ([""] if number else []) + part]


def _join_lines(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"
