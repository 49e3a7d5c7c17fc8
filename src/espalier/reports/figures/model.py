"""All figures of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from espalier.reports.chart_rows import PriorProfile, Row, compared_chart_rows, compared_content
from espalier.reports.figures.accuracy import accuracy_by_method, intervals
from espalier.reports.figures.depth import gradient_profile, prior_profile
from espalier.reports.figures.drawing import Figure
from espalier.reports.figures.layers import kept_layers, kept_map
from espalier.reports.figures.perplexity import accuracy_perplexity
from espalier.reports.figures.race import race_figure
from espalier.reports.figures.settings import accuracy_by_setting
from espalier.reports.figures.sizes import accuracy_size
from espalier.reports.figures.task_profile import task_profile
from espalier.reports.messages import Texts
from espalier.reports.sections.answers import common_documents_label
from espalier.reports.sections.introduction import by_ratio
from espalier.reports.sections.types import Content


def model_figures(
    texts: Texts,
    analysis: Content,
    rows: Mapping[str, list[Row]],
    layers: dict[str, list[Row]],
    priors: Sequence[PriorProfile],
) -> list[Figure]:
    """Return the figures of one model: those of each pruning ratio, the headline ratio first, then those of all ratios.

    Args:
        texts: Texts in the language of the report.
        analysis: Analysis of the model.
        rows: Experiments (`espalier.reports.chart_rows.experiment_chart_rows`) of each pruning ratio, by the key of the
            ratio in the analysis.
        layers: Share kept per layer, by experiment (`espalier.reports.chart_rows.layer_chart_rows`).
        priors: Priors over depth (`espalier.reports.chart_rows.prior_profiles`).
    """
    ratios = by_ratio(analysis) or [("", analysis)]
    figures = [
        figure.renamed(ratio_name(figure.name, analysis, key))
        for key, content in ratios
        for figure in ratio_figures(texts, content, rows.get(key, []), layers)
    ]
    return [
        *figures,
        accuracy_size(texts, analysis, rows),
        gradient_profile(texts, analysis),
        prior_profile(texts, priors),
    ]


def ratio_figures(texts: Texts, content: Content, rows: list[Row], layers: dict[str, list[Row]]) -> list[Figure]:
    """Return the figures of one model at one pruning ratio.

    Args:
        texts: Texts in the language of the report.
        content: Results of the model at that ratio.
        rows: Experiments at that ratio (`espalier.reports.chart_rows.experiment_chart_rows`).
        layers: Share kept per layer, by experiment (`espalier.reports.chart_rows.layer_chart_rows`).
    """
    best = content["best"]["experiment"] if content["best"] else None
    compared, compared_rows = compared_content(content), compared_chart_rows(content, rows)
    return [
        _with_label(texts, content, accuracy_by_method(texts, compared, compared_rows)),
        _with_label(texts, content, accuracy_by_setting(texts, compared, compared_rows)),
        accuracy_perplexity(texts, content, rows),
        intervals(texts, content, rows),
        task_profile(texts, content, rows),
        kept_layers(texts, best, layers),
        kept_map(texts, rows, layers),
        *([race_figure(texts, content)] if content.get("race") else []),
    ]


def _with_label(texts: Texts, content: Content, figure: Figure) -> Figure:
    """Add to a caption on how many documents a race compares the experiments, if these are not all documents."""
    return replace(figure, caption=" ".join([figure.caption, *common_documents_label(texts, content["comparisons"])]))


def ratio_name(name: str, content: Content, key: str) -> str:
    """Return the file name of a figure of one pruning ratio: only ratios besides the headline ratio are in the name.

    Args:
        name: Name of the figure.
        content: Analysis of the model or the study.
        key: Key of the ratio in the analysis.
    """
    of_ratio = content["by_ratio"].get(key, content)
    return name if of_ratio["pruning_ratio"] == content["headline_ratio"] else f"{name}-p{key}"
