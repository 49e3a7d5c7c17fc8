"""Pages of a whole study: the index of all reports and files, and the table of all experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from espalier.reports.chart_rows import Row
from espalier.reports.formatting import MISSING, format_fixed, format_percent
from espalier.reports.html import PlacedFigure
from espalier.reports.listing import all_experiments_listing
from espalier.reports.messages import Texts
from espalier.reports.page import render_page
from espalier.reports.provenance import Provenance
from espalier.reports.sections.answers import percent_interval
from espalier.reports.sections.cross import cross_headline, cross_notes
from espalier.reports.sections.introduction import counts_line, headline
from espalier.reports.sections.types import Content
from espalier.reports.site import Link, Site

FILES_OF_STUDY = (
    "cross_model/all_models_best_configs.csv", "cross_model/cross_model_comparison.json",
    "cross_model/analysis_summary.json", "cross_model/tables/best_configs.md", "experiments.parquet",
    "../consolidated/experiments.parquet", "../consolidated/evaluations.parquet", "../consolidated/layers.parquet",
)  # fmt: skip
"""Files that the index links, relative to it. `experiments.parquet` is the consolidated table with more columns."""


@dataclass(frozen=True)
class IndexRow:
    """A model in the index: its best experiment at its headline ratio, and links to its pages and files."""

    name: str
    address: str
    kind: str
    ratio: str
    best: str
    best_address: str | None
    acc: str
    kept: str
    kept_interval: str
    files: Sequence[Link]


def index_html(
    summary: Content,
    analyses: Sequence[Content],
    language: str = "en",
    *,
    drawn: Mapping[str, str] | None = None,
    site: Site | None = None,
    provenance: Provenance | None = None,
) -> str:
    """Return the index of all reports and files of a study.

    Args:
        summary: Cross-model analysis of the study.
        analyses: Analyses of the models.
        language: Language code, `en` or `zh`.
        drawn: SVG of the figures that compare the models, by name; the index shows the one of all pruning ratios.
        site: The pages of the study.
        provenance: Where the numbers come from.
    """
    texts = Texts(language)
    site = site or Site(root="")
    svg = (drawn or {}).get("accuracy_size")
    caption = texts("f.sizes")
    figure = None if svg is None else PlacedFigure(
        "accuracy_size", caption, caption, Markup(svg), None, wide=False  # noqa: S704 (an XML library wrote it)
    )  # fmt: skip
    shared = [
        Link("report.txt", "cross_model/report.txt"),
        *(Link(path.removeprefix("../").removeprefix("cross_model/"), path) for path in FILES_OF_STUDY),
        Link(texts("n.figures"), "cross_model/figures/"),
    ]
    # Without report.ratio, the headline ratio of a model is the largest of its own grid.
    ratios = {one["headline_ratio"] for one in analyses if one["headline_ratio"] is not None}
    ordered = "" if not ratios or len(analyses) < 2 else (
        texts("n.ordered", ratio=_percent(next(iter(ratios)))) if len(ratios) == 1 else texts("n.ordered.each")
    )  # fmt: skip
    return render_page(
        texts, "index.html", site=site, provenance=provenance, title=texts("n.index.title", study=summary["study"]),
        headline=headline(texts, analyses[0]) if len(analyses) == 1 else cross_headline(texts, summary),
        counts=counts_line(texts, summary["all_ratios"]["experiments"]),
        rows=[_index_row(texts, analysis, site) for analysis in _by_kept(analyses)], ordered=ordered,
        several_ratios=len(ratios) > 1, shared=shared, figure=figure,
        notes=cross_notes(texts, summary),
    )  # fmt: skip


def experiments_html(
    study: str,
    analyses: Sequence[Content],
    rows: Sequence[dict[str, list[Row]]],
    language: str = "en",
    *,
    site: Site | None = None,
    provenance: Provenance | None = None,
) -> str:
    """Return the page of all experiments of all models.

    Args:
        study: Name of the study.
        analyses: Analyses of the models.
        rows: Experiments of each model, by the key of the pruning ratio in its analysis
            (`espalier.reports.chart_rows.experiment_chart_rows`).
        language: Language code, `en` or `zh`.
        site: The pages of the study.
        provenance: Where the numbers come from.
    """
    texts = Texts(language)
    site = site or Site(root="")
    counts = [analysis["all_ratios"]["experiments"] for analysis in analyses]
    n_invalid, total = (sum(one[key] for one in counts) for key in ("invalid", "total"))
    about = [texts("n.experiments.about")]
    about += [texts("n.experiments.left_out", n=f"{n_invalid:,}", total=f"{total:,}")] if n_invalid else []
    return render_page(
        texts, "experiments.html", site=site, provenance=provenance, title=texts("n.experiments.title", study=study),
        about=" ".join(about), listing=all_experiments_listing(texts, analyses, rows, site),
    )  # fmt: skip


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.10g}%"


def _by_kept(analyses: Sequence[Content]) -> list[Content]:
    """Order models by their headline ratio, largest first, then by what their best experiment keeps.

    Those of which it is not known what they keep come last among the models of a ratio, by accuracy.
    """

    def order(analysis: Content) -> tuple[float, bool, float, float, str]:
        best, kept = analysis["best"], analysis["best_vs_baseline"]["acc_kept"]
        accuracy = best["acc_mean"] if best else -1.0
        ratio = analysis["headline_ratio"] or 0.0
        return -ratio, kept is None, 0.0 if kept is None else -kept, -accuracy, analysis["model"]

    return sorted(analyses, key=order)


def _index_row(texts: Texts, analysis: Content, site: Site) -> IndexRow:
    model, best = analysis["model"], analysis["best"]
    certain = analysis["uncertainty"]["experiments"].get(best["experiment"], {}) if best else {}
    page = site.model(model) or f"{site.root}{model}/report.html"
    folder = page.removesuffix("report.html")
    files = [Link("report.txt", f"{folder}report.txt"), Link("analysis.json", f"{folder}analysis.json")]
    files.append(Link(texts("n.figures"), f"{folder}figures/"))
    if model in site.with_structures:
        files.append(Link(texts("n.structures"), f"{folder}structures/"))
    files.append(Link("all_methods_results.csv", f"{site.root}../consolidated/{model}/all_methods_results.csv"))
    return IndexRow(
        name=model,
        address=page,
        kind=texts(f"kind.{analysis['kind']}"),
        ratio=MISSING if analysis["headline_ratio"] is None else _percent(analysis["headline_ratio"]),
        best=best["experiment"] if best else MISSING,
        best_address=site.structure(model, best["experiment"]) if best else None,
        acc=format_fixed(best["acc_mean"] if best else None),
        kept=format_percent(analysis["best_vs_baseline"]["acc_kept"] if best else None),
        kept_interval=percent_interval(texts, certain.get("acc_kept_interval")),
        files=files,
    )
