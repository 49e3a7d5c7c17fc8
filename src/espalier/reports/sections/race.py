"""Section on the race: how far each experiment went, and what stopped it. And the label of what compares them all."""

from __future__ import annotations

from dataclasses import replace

from espalier.reports.formatting import MISSING, format_fixed, format_interval, format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.answers import common_documents_label
from espalier.reports.sections.types import Content, ReportSection, Table


def race_sections(texts: Texts, content: Content) -> list[ReportSection]:
    """Return the section of one pruning ratio; an empty list if nothing was raced."""
    race = content.get("race")
    if not race:
        return []
    common = race["common"]
    on_common = {} if common is None else common["experiments"]
    rows = [
        [
            name,
            f"{one['n_documents']:,}",
            str(one["rung"]),
            format_fixed(one["acc_mean"]),
            *_on_common_cells(texts, on_common.get(name)),
            one["stopped_by"] or MISSING,
        ]
        for name, one in race["experiments"].items()
    ]
    codes = ("documents", "rung", "accuracy", "common", "ci", "by")
    header = [texts("experiment"), *(texts(f"race.{code}") for code in codes)]
    about = texts(f"race.about.{race['keep']}")
    if race["documents_share"] is not None:
        about += texts("race.share", share=format_percent(race["documents_share"]))
    remarks = [texts("race.note")] if common is None else [_width(texts, common), texts("race.note.common")]
    return [ReportSection(texts("s.race"), [about], [Table(header, rows, text_columns=(0, 6))], remarks, ["race"])]


def label_common_documents(texts: Texts, compared: Content, section: ReportSection) -> ReportSection:
    """Put first in a section on how many documents its experiments are compared, if these are not all documents.

    Args:
        texts: Texts in the language of the report.
        compared: The comparisons of one model, or over all models.
        section: The section.
    """
    return replace(section, paragraphs=[*common_documents_label(texts, compared), *section.paragraphs])


def _on_common_cells(texts: Texts, one: Content | None) -> list[str]:
    if one is None:
        return [MISSING, MISSING]
    return [format_fixed(one["acc_mean"]), format_interval(texts, one["interval"])]


def _width(texts: Texts, common: Content) -> str:
    """Say on how many documents all experiments are compared, and how wide the intervals are there."""
    tasks = ", ".join(f"{task} {n:,}" for task, n in common["tasks"].items())
    return texts(
        "race.width", n=f"{common['n_documents']:,}", total=f"{common['n_all']:,}", tasks=tasks,
        points=f"{100 * common['half_width']:.1f}",
    )  # fmt: skip
