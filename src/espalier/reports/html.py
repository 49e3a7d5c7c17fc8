"""HTML reports. Each page is one file that contains its style, script and figures and loads nothing else.

Names that users chose reach a page as text, which the template escapes, or inside an SVG, which an XML library wrote. A
Content-Security-Policy forbids all requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from espalier.reports.chart_rows import PriorProfile, Row
from espalier.reports.figures.cross import study_figures
from espalier.reports.figures.drawing import Figure
from espalier.reports.figures.model import model_figures, ratio_name
from espalier.reports.listing import Listing, best_listing, experiments_listing
from espalier.reports.messages import Texts
from espalier.reports.page import render_page
from espalier.reports.provenance import Provenance
from espalier.reports.sections.cross import cross_headline, cross_notes, cross_overview, cross_sections
from espalier.reports.sections.introduction import by_ratio, counts_line, headline, notes, overview, ratio_title
from espalier.reports.sections.model import model_sections
from espalier.reports.sections.types import Content, Overview, ReportSection
from espalier.reports.site import Link, Site

FIRST_MODEL_FIGURES = ("accuracy_by_method", "accuracy_size")
FIRST_STUDY_FIGURES = ("kept_by_method", "best_vs_baseline")
"""Figures of the first screen."""


@dataclass(frozen=True)
class PlacedFigure:
    """A figure of a page.

    Attributes:
        name: File name without suffix.
        caption: Caption, in the language of the page.
        alt: Alternative text, in the language of the page.
        svg: The SVG document, or None if there is nothing to draw.
        reason: Reason why there is nothing to draw.
        wide: Whether the figure is two columns wide.
    """

    name: str
    caption: str
    alt: str
    svg: Markup | None
    reason: str | None
    wide: bool


@dataclass(frozen=True)
class PlacedSection:
    """A numbered section of a page, with its figures. `id` is its permalink."""

    id: str
    content: ReportSection
    figures: Sequence[PlacedFigure]


@dataclass(frozen=True)
class RatioPart:
    """The part of a page on one pruning ratio. `id` is its permalink."""

    id: str
    title: str
    counts: str
    sections: Sequence[PlacedSection]
    figures: Sequence[PlacedFigure]


def model_html(
    analysis: Content,
    rows: Mapping[str, list[Row]],
    layers: dict[str, list[Row]],
    language: str = "en",
    *,
    priors: Sequence[PriorProfile] = (),
    drawn: Mapping[str, str] | None = None,
    site: Site | None = None,
    provenance: Provenance | None = None,
) -> str:
    """Return the HTML page of one model.

    Args:
        analysis: Analysis of the model.
        rows: Experiments (`espalier.reports.chart_rows.experiment_chart_rows`) of each pruning ratio, by the key of the
            ratio in the analysis.
        layers: Share kept per layer, by experiment (`espalier.reports.chart_rows.layer_chart_rows`).
        language: Language code, `en` or `zh`.
        priors: Priors over depth (`espalier.reports.chart_rows.prior_profiles`).
        drawn: SVG of the figures, by name. A figure without SVG is shown as a link.
        site: The pages of the study.
        provenance: Where the numbers come from.
    """
    texts = Texts(language)
    site = site or Site()
    kind = texts(f"kind.{analysis['kind']}")
    files_of_model = [
        Link("report.txt", "report.txt"),
        Link("analysis.json", "analysis.json"),
        Link(texts("n.figures"), "figures/"),
        *([Link(texts("n.structures"), "structures/")] if analysis["model"] in site.with_structures else []),
        Link("all_methods_results.csv", f"../../consolidated/{analysis['model']}/all_methods_results.csv"),
    ]
    return _render_report(
        texts,
        figures=model_figures(texts, analysis, rows, layers, priors),
        drawn=drawn or {},
        first=FIRST_MODEL_FIGURES,
        content=analysis,
        sections={key: model_sections(texts, analysis, one) for key, one in by_ratio(analysis)},
        title=texts("page.model", model=analysis["model"]),
        about=texts("about.model", kind=kind.capitalize(), family=analysis["family"], study=analysis["study"]),
        headline=headline(texts, analysis),
        overview=overview(texts, analysis),
        listing=experiments_listing(texts, analysis, dict(rows), site),
        notes=notes(texts, analysis),
        site=site,
        files=files_of_model,
        provenance=provenance,
    )


def cross_model_html(
    summary: Content,
    language: str = "en",
    *,
    analyses: Sequence[Content] = (),
    drawn: Mapping[str, str] | None = None,
    site: Site | None = None,
    provenance: Provenance | None = None,
) -> str:
    """Return the HTML page that compares all models.

    Args:
        summary: Cross-model analysis of the study.
        language: Language code, `en` or `zh`.
        analyses: Analyses of the models.
        drawn: SVG of the figures, by name. A figure without SVG is shown as a link.
        site: The pages of the study.
        provenance: Where the numbers come from.
    """
    texts = Texts(language)
    site = site or Site()
    files_of_study = [
        Link("report.txt", "report.txt"),
        *(Link(name, name) for name in ("all_models_best_configs.csv", "cross_model_comparison.json")),
        Link("analysis_summary.json", "analysis_summary.json"),
        Link(texts("n.figures"), "figures/"),
        Link(texts("n.latex"), "tables/"),
    ]
    return _render_report(
        texts,
        figures=study_figures(texts, summary, analyses),
        drawn=drawn or {},
        first=FIRST_STUDY_FIGURES,
        content=summary,
        sections={key: cross_sections(texts, one) for key, one in by_ratio(summary)},
        title=texts("page.cross"),
        about=texts("about.cross", study=summary["study"]),
        headline=cross_headline(texts, summary),
        overview=cross_overview(texts, summary),
        listing=best_listing(texts, summary, site),
        notes=cross_notes(texts, summary),
        site=site,
        files=files_of_study,
        provenance=provenance,
    )


def _render_report(
    texts: Texts, *, figures: Sequence[Figure], drawn: Mapping[str, str], first: Sequence[str], content: Content,
    sections: Mapping[str, list[ReportSection]], overview: Overview, listing: Listing, site: Site,
    provenance: Provenance | None, **values: Any,
) -> str:  # fmt: skip
    """Place each figure once: on the first screen, in the section that names it, or at the end of its part."""
    waiting = {figure.name: _place(figure, drawn) for figure in figures}
    first_figures = [waiting.pop(name) for name in first if name in waiting]
    ratios = []
    for key, one in by_ratio(content):
        place = f"p{key}".replace(".", "_")
        placed = [
            PlacedSection(f"{place}-{number}", section, _take(waiting, content, key, section.figures))
            for number, section in enumerate(sections[key], start=1)
        ]
        own = [name for name in waiting if name == ratio_name(name.rpartition("-p")[0] or name, content, key)]
        is_headline = one["pruning_ratio"] == content["headline_ratio"]
        rest = [waiting.pop(name) for name in own if not (is_headline and name in _OF_ALL_RATIOS)]
        title = ratio_title(texts, one["pruning_ratio"]) + (f" ({texts('headline')})" if is_headline else "")
        ratios.append(RatioPart(place, title, counts_line(texts, one["experiments"]), placed, rest))
    return render_page(
        texts, "report.html", site=site, provenance=provenance, first_figures=first_figures, ratios=ratios,
        overview=overview, listing=listing, depth=list(waiting.values()),
        counts=counts_line(texts, content["all_ratios"]["experiments"]), **values,
    )  # fmt: skip


_OF_ALL_RATIOS = {"accuracy_size", "gradient_profile", "prior_profile"}


def _take(waiting: dict[str, PlacedFigure], content: Content, key: str, names: Sequence[str]) -> list[PlacedFigure]:
    """Take the figures of a section of one pruning ratio out of those that wait for a place."""
    wanted = [ratio_name(name, content, key) for name in names if name not in _OF_ALL_RATIOS]
    return [waiting.pop(name) for name in wanted if name in waiting]


def _place(figure: Figure, drawn: Mapping[str, str]) -> PlacedFigure:
    svg = drawn.get(figure.name)
    return PlacedFigure(
        figure.name,
        figure.caption,
        figure.alt,
        None if svg is None or figure.reason else Markup(svg),  # noqa: S704 (an XML library wrote it)
        figure.reason,
        figure.wide,
    )
