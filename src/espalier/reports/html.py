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

from espalier.reports.chart_rows import Row
from espalier.reports.figures.cross import cross_figures
from espalier.reports.figures.layers import gradient_profile_figure, kept_layers
from espalier.reports.figures.model import ratio_figures
from espalier.reports.figures.vega import Figure, Spec, compile_panel
from espalier.reports.listing import Listing, best_listing, experiments_listing
from espalier.reports.messages import Texts
from espalier.reports.sections.cross import cross_headline, cross_overview, cross_sections, failed_jobs
from espalier.reports.sections.introduction import by_ratio, counts_line, headline, notes, overview, ratio_title
from espalier.reports.sections.model import model_sections
from espalier.reports.sections.types import Content, Overview, ReportSection


def model_html(
    analysis: Content, rows: Mapping[str, list[Row]], layers: dict[str, list[Row]], language: str = "en"
) -> str:
    """Return the HTML page of one model.

    Args:
        analysis: Analysis of the model.
        rows: Experiments (`espalier.reports.chart_rows.experiment_chart_rows`) of each pruning ratio, by the key of the
            ratio in the analysis.
        layers: Share kept per layer, by experiment (`espalier.reports.chart_rows.layer_chart_rows`).
        language: Language code, `en` or `zh`.
    """
    texts = Texts(language)
    kind = texts(f"kind.{analysis['kind']}")
    return _Page(texts).render(
        title=texts("page.model", model=analysis["model"]),
        about=texts("about.model", kind=kind.capitalize(), family=analysis["family"], study=analysis["study"]),
        headline=headline(texts, analysis),
        content=analysis,
        overview=overview(texts, analysis),
        listing=experiments_listing(texts, analysis, dict(rows)),
        sections={key: model_sections(texts, analysis, one) for key, one in by_ratio(analysis)},
        figures={key: ratio_figures(texts, one, rows[key]) for key, one in by_ratio(analysis)},
        compared_first=_compared_first(analysis, rows, layers),
        layers=layers,
        profile=gradient_profile_figure(texts, analysis),
        notes=notes(texts, analysis),
    )


def cross_model_html(summary: Content, language: str = "en") -> str:
    """Return the HTML page that compares all models.

    Args:
        summary: Cross-model analysis of the study.
        language: Language code, `en` or `zh`.
    """
    texts = Texts(language)
    return _Page(texts).render(
        title=texts("page.cross"),
        about=texts("about.cross", study=summary["study"]),
        headline=cross_headline(texts, summary),
        content=summary,
        overview=cross_overview(texts, summary),
        listing=best_listing(texts, summary),
        sections={key: cross_sections(texts, one) for key, one in by_ratio(summary)},
        figures={key: cross_figures(texts, one) for key, one in by_ratio(summary)},
        compared_first=[],
        layers={},
        profile=None,
        notes=[texts("note.cross"), *failed_jobs(texts, summary)],
    )


def _compared_first(analysis: Content, rows: Mapping[str, list[Row]], layers: Mapping[str, Any]) -> list[str]:
    """Return the two experiments that the page compares first: the best, and the best of another method."""
    best = analysis["best"]
    if best is None or best["experiment"] not in layers:
        return list(layers)[:1] * 2
    ordered = [row for key, _ in by_ratio(analysis) for row in rows[key] if row["experiment"] in layers]
    others = [row["experiment"] for row in ordered if row["method"] != best["method"]]
    return [best["experiment"], (others or [best["experiment"]])[0]]


class _Page:
    """Renders one page and collects the charts of its figures."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._charts: dict[str, Spec] = {}

    def render(
        self, *, content: Content, overview: Overview, listing: Listing, sections: Mapping[str, list[ReportSection]],
        figures: Mapping[str, list[Figure]], compared_first: list[str], layers: dict[str, list[Row]],
        profile: Figure | None, notes: Sequence[str], **headings: str,
    ) -> str:  # fmt: skip
        texts = self._texts
        ratios = [
            {
                "key": key,
                "title": ratio_title(texts, one["pruning_ratio"]),
                "is_headline": one["pruning_ratio"] == content["headline_ratio"],
                "counts": counts_line(texts, one["experiments"]),
                "sections": sections[key],
                "figures": {figure.name: self._place(figure, f"p{key}-{figure.name}") for figure in figures[key]},
            }
            for key, one in by_ratio(content)
        ]
        compared = [
            {"name": name, "figure": self._place(kept_layers(texts, name, layers), f"kept-{number}")}
            for number, name in enumerate(compared_first)
        ]
        page = _environment().get_template("report.html")
        return page.render(
            **headings, texts=texts, overview=overview, listing=listing, ratios=ratios, compared=compared,
            experiments=list(layers), profile=self._place(profile, "profile") if profile else None, notes=notes,
            counts=counts_line(texts, content["all_ratios"]["experiments"]),
            data=_script_json(
                {"charts": self._charts, "layers": layers, "texts": {"shown": texts("p.shown", n="{n}")}}
            ),
            vega=_source("vendor/vega.min.js"), script=_source("templates/page.js"),
        )  # fmt: skip

    def _place(self, figure: Figure, name: str) -> dict[str, Any]:
        charts = []
        for number, panel in enumerate(figure.panels):
            charts.append(f"{name}-{number}")
            self._charts[charts[-1]] = compile_panel(panel, figure.alt)
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


def _script_json(content: Any) -> Markup:
    """Return JSON for a script element. `<` is escaped, so that no value can close the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704 (escaped)


def _source(path: str) -> Markup:
    """Read a script of this package."""
    return Markup(files("espalier.reports").joinpath(path).read_text(encoding="utf-8"))  # noqa: S704 (our own)
