"""Section on published figures: beside the study's results, with every difference in protocol, and without ranking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from espalier.reports.formatting import MISSING, format_fixed, format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content, ReportSection, Table


def literature_sections(texts: Texts, content: Content) -> list[ReportSection]:
    """Return the section of one pruning ratio; an empty list if no published figure fits its models.

    Sources and differences are numbered in the order of their first figure, and listed below the tables.
    """
    models = content.get("literature") or []
    if not models:
        return []
    figures = [figure for one in models for figure in one["figures"]]
    sources = _numbered(_source(texts, figure) for figure in figures)
    differences = _numbered(_difference(texts, one) for figure in figures for one in figure["differences"])
    tables = [_table(texts, one, sources, differences) for one in models]
    remarks = [f"D{number}. {text}" for text, number in differences.items()]
    remarks += [f"[{number}] {text}" for text, number in sources.items()]
    return [ReportSection(texts("x.literature"), [texts("x.literature.about")], tables, remarks)]


def _numbered(lines: Iterable[str]) -> dict[str, int]:
    return {line: number for number, line in enumerate(dict.fromkeys(lines), start=1)}


def _table(texts: Texts, one: Content, sources: Mapping[str, int], differences: Mapping[str, int]) -> Table:
    own, here = one["own"], texts("x.literature.this_study")
    rows = [
        [
            own["method"], here, format_percent(own["pruning_ratio"]), format_fixed(own["acc_mean"]),
            _perplexity(texts, {own["ppl_text"]: own["ppl"]}), MISSING,
        ],
        [
            texts("Unpruned"), here, format_percent(0.0), format_fixed(own["baseline_acc_mean"]),
            _perplexity(texts, {own["ppl_text"]: own["baseline_ppl"]}), MISSING,
        ],
    ]  # fmt: skip
    for figure in one["figures"]:
        found = sorted(differences[_difference(texts, difference)] for difference in figure["differences"])
        rows.append(
            [
                figure["method"], f"[{sources[_source(texts, figure)]}]", format_percent(figure["ratio"]),
                format_fixed(figure["acc_mean"]), _perplexity(texts, figure["perplexity"]),
                ", ".join(f"D{number}" for number in found) or texts("x.literature.no_difference"),
            ]
        )  # fmt: skip
    header = [texts(f"x.literature.{code}") for code in ("method", "source", "removed", "acc", "ppl", "differences")]
    caption = texts("x.literature.of", model=one["model"], name=one["name"])
    return Table(header, rows, (0, 1, 4, 5), caption)


def _perplexity(texts: Texts, values: Mapping[str | None, float | None]) -> str:
    shown = [
        f"{format_fixed(value, 2)} ({texts('x.literature.unnamed') if name == 'unnamed' else name})"
        for name, value in values.items()
        if name and value is not None
    ]
    return texts("list.separator").join(shown) or MISSING


def _difference(texts: Texts, one: Content) -> str:
    code = one["code"]
    if code in {"fine_tuned", "chat_template"}:
        return texts(f"x.literature.differs.{code}")
    published, own = (_value(texts, code, one[side], side) for side in ("published", "own"))
    return texts("x.literature.differs", what=texts(f"x.literature.differs.{code}"), published=published, own=own)


def _value(texts: Texts, code: str, value: Any, side: str) -> str:
    not_said = texts("x.literature.not_said")
    if value is None and code in {"limit", "max_tokens"}:
        return texts("x.literature.all_documents")
    if value is None:
        return not_said if side == "published" else texts("x.literature.no_text")
    if code == "ratio":
        return format_percent(value, digits=2)
    if code == "share_of":
        return texts(f"x.literature.share.{value}")
    if code == "calibration":
        name, *size = (not_said if part is None else str(part) for part in value)
        return texts("x.literature.calibration", name=name, n_samples=size[0], seq_len=size[1])
    return texts("list.separator").join(map(str, value)) if isinstance(value, list) else str(value)


def _source(texts: Texts, figure: Content) -> str:
    code = "x.literature.cited" if figure["read_in"] is None else "x.literature.cited_in"
    return texts(code, **{name: figure[name] for name in ("title", "table", "url", "read_in", "leaves_out")})
