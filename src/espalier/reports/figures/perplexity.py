"""Figure of accuracy against perplexity."""

from __future__ import annotations

from math import exp, log, log10
from statistics import quantiles
from typing import TYPE_CHECKING

from espalier.reports.chart_rows import Row
from espalier.reports.figures.accuracy import accuracy_table, describe, shown_values
from espalier.reports.figures.drawing import INK, INTERVAL, Drawing, Figure, Style, empty_figure, limits, method_styles
from espalier.reports.formatting import MISSING, format_fixed
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy_perplexity(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Draw accuracy against the perplexity of the first text, with the unpruned model as a star.

    The axis of perplexity is logarithmic and covers the values without outliers. Outliers are arrows at its edge, with
    their values.
    """
    text = content["ppl_accuracy"]["text"]
    name, caption = "accuracy_perplexity", texts("f.ppl", text=text or MISSING)
    with_ppl = [row for row in rows if row["ppl"]]
    if not text or not with_ppl:
        return empty_figure(name, caption, texts("f.ppl.none"))
    baseline = content["baseline"] if content["baseline"] and content["baseline"]["ppl"] else None
    usual = without_outliers([row["ppl"] for row in with_ppl])
    low, high = _range([*usual, *([baseline["ppl"]] if baseline else [])])

    def draw() -> Drawing:
        drawing = Drawing(2.5)
        axes = drawing.axes
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(limits(shown_values(content, with_ppl)))
        styles = method_styles(content["methods"], {row["method"] for row in with_ppl})
        for row in with_ppl:
            _draw_experiment(texts, drawing, row, styles[row["method"]], (low, high))
        legend = dict(styles)
        if baseline:
            star = Style(INK, "*", {"markersize": 8})
            tip = f"{texts('unpruned')}\n{texts('ppl')} {format_fixed(baseline['ppl'], 2)}"
            drawing.point(axes, baseline["ppl"], baseline["acc_mean"], star, tip, markersize=8, zorder=3, clip_on=False)
            legend[texts("unpruned")] = star
        _label_logarithmic(axes)
        axes.set_xlabel(texts("ppl.of", text=text))
        axes.set_ylabel(texts("f.acc_axis"))
        drawing.legend(legend)
        return drawing

    correlation = content["ppl_accuracy"]
    if correlation["r"] is None:
        description = texts("r.undefined", reason=texts.reason(correlation))
    else:
        description = texts("r.defined", r=format_fixed(correlation["r"], 3), n=correlation["n"])
    if baseline:
        caption += texts("f.ppl.star")
    if len(usual) < len(with_ppl):
        caption += texts("f.ppl.beyond")
    alt = texts("f.ppl.alt", n=len(with_ppl), r=description)
    return Figure(name, caption, alt, accuracy_table(content, with_ppl), draw)


def without_outliers(values: list[float]) -> list[float]:
    """Return the values within three interquartile ranges of the middle half, or within a factor of 3 (log scale)."""
    if len(values) < 4:
        return values
    low, _, high = quantiles((log(value) for value in values), n=4, method="inclusive")
    reach = max(3 * (high - low), log(3))
    return [value for value in values if low - reach <= log(value) <= high + reach]


def _range(values: list[float]) -> tuple[float, float]:
    margin = exp(max(0.02, 0.05 * log(max(values) / min(values))))
    return min(values) / margin, max(values) * margin


def _draw_experiment(texts: Texts, drawing: Drawing, row: Row, style: Style, ends: tuple[float, float]) -> None:
    axes = drawing.axes
    low, high = ends
    tip = f"{describe(texts, row)}\n{texts('ppl')} {format_fixed(row['ppl'], 2)}"
    if low <= row["ppl"] <= high:
        if row["low"] is not None:
            axes.plot([row["ppl"]] * 2, [row["low"], row["high"]], color=INTERVAL, linewidth=0.9, zorder=1.5)
        drawing.point(axes, row["ppl"], row["acc"], style, tip, clip_on=False)
        return
    is_high = row["ppl"] > high
    edge = high if is_high else low
    drawing.point(axes, edge, row["acc"], Style(style.colour, ">" if is_high else "<"), tip, clip_on=False)
    shift = (-5, 0) if is_high else (5, 0)
    axes.annotate(
        f"{row['ppl']:.3g}", (edge, row["acc"]), shift, textcoords="offset points", va="center", size=7,
        ha="right" if is_high else "left",
    )  # fmt: skip


def _label_logarithmic(axes: Axes) -> None:
    """Label a logarithmic x axis with plain numbers, also if it covers less than a power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axes.get_xlim()
    decades = log10(high / low)
    steps = (1,) if decades > 3 else (1, 3) if decades > 1.5 else (1, 2, 5) if decades > 0.6 else tuple(range(1, 10))
    if decades < 0.25:  # a linear scale in all but name
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(5))
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
