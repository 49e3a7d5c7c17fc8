"""Section on the race: how far each experiment went, and what stopped it."""

from __future__ import annotations

from espalier.reports.formatting import MISSING, format_fixed, format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content, ReportSection, Table


def race_sections(texts: Texts, content: Content) -> list[ReportSection]:
    """Return the section of one pruning ratio; an empty list if nothing was raced."""
    race = content.get("race")
    if not race:
        return []
    rows = [
        [
            name,
            f"{one['n_documents']:,}",
            str(one["rung"]),
            format_fixed(one["acc_mean"]),
            one["stopped_by"] or MISSING,
        ]
        for name, one in race["experiments"].items()
    ]
    header = [texts("experiment"), *(texts(f"race.{code}") for code in ("documents", "rung", "accuracy", "by"))]
    about = texts(f"race.about.{race['keep']}")
    if race["documents_share"] is not None:
        about += texts("race.share", share=format_percent(race["documents_share"]))
    return [ReportSection(texts("s.race"), [about], [Table(header, rows, text_columns=(0, 4))], [texts("race.note")])]
