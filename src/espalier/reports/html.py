"""HTML reports. Each report is one file that contains its style, script, charts and data and loads nothing else.

Names that users chose reach a page in two ways: as text, which the template escapes, and as JSON. In the JSON `<` is
escaped, so that no name can close the script element. A Content-Security-Policy forbids all requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from espalier.reports.figures.cross import cross_figures
from espalier.reports.figures.depth import gradient_profile, kept_by
from espalier.reports.figures.model import ratio_figures
from espalier.reports.figures.vega import Figure, Spec, compiled
from espalier.reports.listing import Listing, best_listing, experiments_listing
from espalier.reports.messages import Words
from espalier.reports.rows import Row
from espalier.reports.sections.base import (
    Content,
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


def model_html(
    analysis: Content, rows: Mapping[str, list[Row]], layers: dict[str, list[Row]], language: str = "en"
) -> str:
    """Return the HTML page of one model.

    Args:
        analysis: Analysis of the model.
        rows: Experiments of each pruning ratio, by its key in the analysis (`espalier.reports.rows.experiment_rows`).
        layers: Share kept per layer, by experiment (`espalier.reports.rows.layer_rows`).
        language: Language code, `en` or `zh`.
    """
    words = Words(language)
    kind = words(f"kind.{analysis['kind']}")
    return _Page(words).render(
        title=words("page.model", model=analysis["model"]),
        about=words("about.model", kind=kind.capitalize(), family=analysis["family"], study=analysis["study"]),
        headline=headline(words, analysis),
        content=analysis,
        overview=overview(words, analysis),
        listing=experiments_listing(words, analysis, dict(rows)),
        sections={key: model_sections(words, analysis, one) for key, one in by_ratio(analysis)},
        figures={key: ratio_figures(words, one, rows[key]) for key, one in by_ratio(analysis)},
        chosen=_chosen(analysis, rows, layers),
        layers=layers,
        profile=gradient_profile(words, analysis),
        notes=notes(words, analysis),
    )


def cross_model_html(summary: Content, language: str = "en") -> str:
    """Return the HTML page that compares all models.

    Args:
        summary: Cross-model analysis of the study.
        language: Language code, `en` or `zh`.
    """
    words = Words(language)
    return _Page(words).render(
        title=words("page.cross"),
        about=words("about.cross", study=summary["study"]),
        headline=cross_headline(words, summary),
        content=summary,
        overview=cross_overview(words, summary),
        listing=best_listing(words, summary),
        sections={key: cross_sections(words, one) for key, one in by_ratio(summary)},
        figures={key: cross_figures(words, one) for key, one in by_ratio(summary)},
        chosen=[],
        layers={},
        profile=None,
        notes=[words("note.cross"), *failed_jobs(words, summary)],
    )


def _chosen(analysis: Content, rows: Mapping[str, list[Row]], layers: Mapping[str, Any]) -> list[str]:
    """Return the two experiments that the page compares first: the best, and the best of another method."""
    best = analysis["best"]
    if best is None or best["experiment"] not in layers:
        return list(layers)[:1] * 2
    ordered = [row for key, _ in by_ratio(analysis) for row in rows[key] if row["experiment"] in layers]
    others = [row["experiment"] for row in ordered if row["method"] != best["method"]]
    return [best["experiment"], (others or [best["experiment"]])[0]]


class _Page:
    """Renders one page and collects the charts of its figures."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._charts: dict[str, Spec] = {}

    def render(
        self, *, content: Content, overview: Overview, listing: Listing, sections: Mapping[str, list[ReportSection]],
        figures: Mapping[str, list[Figure]], chosen: list[str], layers: dict[str, list[Row]], profile: Figure | None,
        notes: Sequence[str], **texts: str,
    ) -> str:  # fmt: skip
        words = self._words
        ratios = [
            {
                "key": key,
                "title": ratio_title(words, one["pruning_ratio"]),
                "is_headline": one["pruning_ratio"] == content["headline_ratio"],
                "counts": counts_line(words, one["experiments"]),
                "sections": sections[key],
                "figures": {figure.name: self._place(figure, f"p{key}-{figure.name}") for figure in figures[key]},
            }
            for key, one in by_ratio(content)
        ]
        compared = [
            {"name": name, "figure": self._place(kept_by(words, name, layers), f"kept-{number}")}
            for number, name in enumerate(chosen)
        ]
        page = _environment().get_template("report.html")
        return page.render(
            **texts, words=words, overview=overview, listing=listing, ratios=ratios, compared=compared,
            experiments=list(layers), profile=self._place(profile, "profile") if profile else None, notes=notes,
            counts=counts_line(words, content["all_ratios"]["experiments"]),
            data=_json({"charts": self._charts, "layers": layers, "texts": {"shown": words("p.shown", n="{n}")}}),
            vega=_source("vendor/vega.min.js"), script=_source("templates/page.js"),
        )  # fmt: skip

    def _place(self, figure: Figure, name: str) -> dict[str, Any]:
        charts = []
        for number, panel in enumerate(figure.panels):
            charts.append(f"{name}-{number}")
            self._charts[charts[-1]] = compiled(panel, figure.alt)
        return {"charts": charts, "caption": figure.caption, "alt": figure.alt, "reason": figure.reason}


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("espalier.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _json(content: Any) -> Markup:
    """Return JSON for a script element. `<` is escaped, so that no value can close the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704 (escaped)


def _source(path: str) -> Markup:
    """Read a script of this package."""
    return Markup(files("espalier.reports").joinpath(path).read_text(encoding="utf-8"))  # noqa: S704 (our own)
