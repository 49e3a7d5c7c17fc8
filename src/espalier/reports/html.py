"""HTML reports: one file each, with its style and figures inside; no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from espalier.reports.cross_sections import cross_headline, cross_sections
from espalier.reports.drawing import Figure, prefix_ids
from espalier.reports.sections import by_ratio, counts_line, headline, model_sections, ratio_title

Figures = Mapping[str, Sequence[Figure]]
"""Figures of each pruning ratio, by its key in `by_ratio`."""


def model_html(analysis: dict[str, Any], figures: Figures) -> str:
    """Write the report of one model from its analysis and figures."""
    return _page(
        title=f"{analysis['model']}: pruning report",
        about=f"{analysis['kind'].capitalize()} model, family {analysis['family']}; study {analysis['study']}.",
        headline=headline(analysis),
        content=analysis,
        sections={key: model_sections(one) for key, one in by_ratio(analysis)},
        figures=figures,
        note=f"Mean accuracy: rule {analysis['acc_mean_rule']}. SD: of the population. n: experiments.",
    )


def cross_model_html(summary: dict[str, Any], figures: Figures) -> str:
    """Write the report that compares all models."""
    return _page(
        title="All models: pruning report",
        about=f"Study {summary['study']}.",
        headline=cross_headline(summary),
        content=summary,
        sections={key: cross_sections(one) for key, one in by_ratio(summary)},
        figures=figures,
        note="Models are compared at equal pruning ratio only.",
    )


def _page(*, content: dict[str, Any], sections: dict[str, Any], figures: Figures, **words: str) -> str:
    environment = Environment(
        loader=PackageLoader("espalier.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    ratios = [
        {
            "key": key,
            "title": ratio_title(one["pruning_ratio"]),
            "is_headline": one["pruning_ratio"] == content["headline_ratio"],
            "counts": counts_line(one["experiments"]),
            "sections": sections[key],
            "figures": {figure.name: (figure, _inline(figure, key)) for figure in figures.get(key, ())},
        }
        for key, one in by_ratio(content)
    ]
    counts = counts_line(content["all_ratios"]["experiments"])
    return environment.get_template("report.html").render(**words, counts=counts, ratios=ratios)


def _inline(figure: Figure, key: str) -> Markup:
    """Take the `<svg>` element out of an SVG document, with ids that no other figure of the page has."""
    return Markup(prefix_ids(figure.svg[figure.svg.index("<svg ") :], f"p{key}"))  # noqa: S704 (made by us)
