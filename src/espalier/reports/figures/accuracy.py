"""Figures of the accuracy of the experiments of one model: by method, and ranked with the set of the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espalier.reports.chart_rows import Row
from espalier.reports.figures.drawing import (
    GREY,
    INK,
    INTERVAL,
    PALETTE,
    Drawing,
    Figure,
    Style,
    empty_figure,
    limit_x,
    line_handle,
    method_styles,
    name_axis,
)
from espalier.reports.formatting import MISSING, format_fixed, format_interval
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content

if TYPE_CHECKING:
    from matplotlib.artist import Artist

UNPRUNED_LINE: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 0.8}


def accuracy_by_method(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Draw the accuracy of each experiment by method, with intervals, method means and the unpruned model."""
    name, caption = "accuracy_by_method", texts("f.method")
    methods = [method for method, one in content["methods"].items() if one["n"]]
    if not methods:
        return empty_figure(name, caption, texts("f.none"))
    styles = method_styles(content["methods"], methods)
    most = max(content["methods"][method]["n"] for method in methods)
    band = max(0.34, 0.06 * most + 0.08)

    def draw() -> Drawing:
        drawing = Drawing(0.75 + band * len(methods))
        axes = drawing.axes
        name_axis(axes, methods)
        for place, method in enumerate(methods):
            of_method = [row for row in rows if row["method"] == method]
            for number, row in enumerate(of_method):
                y = place - 0.36 + 0.72 * (number + 0.5) / len(of_method)
                draw_interval(drawing, row, y)
                drawing.point(axes, row["acc"], y, styles[method], describe(texts, row), markersize=3.6)
            mean = content["methods"][method]["mean"]
            axes.plot([mean, mean], [place - 0.4, place + 0.4], color=INK, linewidth=1.2)
        draw_unpruned(drawing, content)
        limit_x(axes, shown_values(content, rows))
        axes.set_xlabel(texts("f.acc_axis"))
        means = line_handle(texts("f.method_mean"), color=INK, linewidth=1.2)
        drawing.legend_of([means, *_unpruned_handle(texts, content)])
        return drawing

    description = ", ".join(
        texts("f.mean", name=m, mean=format_fixed(content["methods"][m]["mean"]), n=content["methods"][m]["n"])
        for m in methods
    )
    alt = texts("f.method.alt", means=description) + _describe_unpruned(texts, content)
    return Figure(name, caption, alt, accuracy_table(content, rows), draw)


def intervals(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Rank all experiments by accuracy with intervals. Filled points cannot be distinguished from the best."""
    in_set = content["uncertainty"]["set"]
    name, caption = "intervals", texts("f.intervals") if in_set else texts("f.intervals.no_set")
    if not rows:
        return empty_figure(name, caption, texts("f.none"))
    styles = {
        texts("f.in_set"): Style(PALETTE[0], "o"),
        texts("f.out_of_set"): Style(PALETTE[1], "o", {"markerfacecolor": "white"}),
        texts("f.control"): Style(GREY, "x"),
        texts("f.no_set"): Style(PALETTE[2], "D", {"markerfacecolor": "white"}),
    }
    titles = list(styles)

    def title_of(row: Row) -> str:
        if row["in_set"] is None:  # a race may keep no set
            return titles[2 if row["control"] else 3]
        return titles[0 if row["in_set"] else 1]

    def draw() -> Drawing:
        drawing = Drawing(0.85 + 0.145 * len(rows))
        axes = drawing.axes
        name_axis(axes, [row["experiment"] for row in rows])
        for place, row in enumerate(rows):
            style = styles[title_of(row)]
            draw_interval(drawing, row, place)
            tip = f"{describe(texts, row)}\n{title_of(row)}"
            drawing.point(axes, row["acc"], place, style, tip, markersize=4, **style.properties)
        draw_unpruned(drawing, content)
        limit_x(axes, shown_values(content, rows))
        axes.set_xlabel(texts("f.acc_axis"))
        shown = {title_of(row) for row in rows}
        drawing.legend_of(
            [
                *(
                    line_handle(title, marker=style.marker, color=style.colour, linestyle="none", **style.properties)
                    for title, style in styles.items()
                    if title in shown
                ),
                *_unpruned_handle(texts, content),
            ]
        )
        return drawing

    best = content["best"]["experiment"] if content["best"] else MISSING
    alt = (
        texts("f.intervals.alt", n=len(rows), members=in_set["n_simultaneous_members"], best=best)
        if in_set
        else caption
    )
    return Figure(name, caption, alt, accuracy_table(content, rows), draw)


def accuracy_table(content: Content, rows: list[Row]) -> list[Row]:
    """Return the table behind the figures of accuracy: the unpruned model first, then the experiments, best first.

    `in_set`, the older name, and `in_simultaneous_set` are equal: pages and figures show the simultaneous set.
    """
    columns = {
        "experiment": "experiment", "method": "method", "control": "control", "taylor_seq_len": "seq_len",
        "taylor_num_samples": "samples", "acc_mean": "acc", "acc_mean_low": "low", "acc_mean_high": "high",
        "in_set": "in_set", "in_simultaneous_set": "in_set", "acc_kept": "acc_kept", "ppl": "ppl",
    }  # fmt: skip
    table = [{column: row[key] for column, key in columns.items()} for row in rows]
    if baseline := content["baseline"]:
        first = {"experiment": "baseline", "acc_mean": baseline["acc_mean"], "ppl": baseline["ppl"]}
        table.insert(0, dict.fromkeys(columns) | first)
    return table


def describe(texts: Texts, row: Row) -> str:
    """Return the tooltip of an experiment: its name, its accuracy and the interval."""
    line = f"{row['experiment']}\n{texts('f.acc_axis')} {format_fixed(row['acc'])}"
    return line if row["low"] is None else f"{line} ({format_interval(texts, (row['low'], row['high']))})"


def draw_interval(drawing: Drawing, row: Row, y: float) -> None:
    """Draw the interval of an experiment, if it has one."""
    if row["low"] is not None:
        drawing.axes.plot([row["low"], row["high"]], [y, y], color=INTERVAL, linewidth=0.9, zorder=1.5)


def draw_unpruned(drawing: Drawing, content: Content) -> None:
    """Draw the accuracy of the unpruned model as a dashed line, if it is known."""
    if baseline := content["baseline"]:
        drawing.tip(drawing.axes.axvline(baseline["acc_mean"], **UNPRUNED_LINE), format_fixed(baseline["acc_mean"]))


def shown_values(content: Content, rows: list[Row]) -> list[float]:
    """Return all accuracies that a figure shows: with their intervals, and of the unpruned model."""
    values = [row[key] for row in rows for key in ("acc", "low", "high") if row[key] is not None]
    return [*values, content["baseline"]["acc_mean"]] if content["baseline"] else values


def _unpruned_handle(texts: Texts, content: Content) -> list[Artist]:
    return [line_handle(texts("unpruned"), **UNPRUNED_LINE)] if content["baseline"] else []


def _describe_unpruned(texts: Texts, content: Content) -> str:
    return texts("f.unpruned.alt", acc=format_fixed(content["baseline"]["acc_mean"])) if content["baseline"] else ""
