"""Figure of a race: accuracy against the documents that were answered, with the stop of each experiment."""

from __future__ import annotations

from typing import Any

from espalier.reports.chart_rows import Row
from espalier.reports.figures.drawing import (
    GREY,
    INK,
    Drawing,
    Figure,
    empty_figure,
    limits,
    line_handle,
    method_styles,
)
from espalier.reports.formatting import format_fixed
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content


def race_figure(texts: Texts, content: Content) -> Figure:
    """Draw the accuracy of each experiment after the rungs that it answered: open where it stopped, filled at the end.

    Args:
        texts: Texts in the language of the report.
        content: Results of the model at a pruning ratio that was raced.
    """
    race = content["race"]
    name, caption = "race", texts("f.race")
    table = race_table(race)
    if not table:
        return empty_figure(name, caption, texts("only_survivors"))
    known = race["common"]["experiments"]
    survivors = [one for one, ran in race["experiments"].items() if ran["stopped_by"] is None]

    def draw() -> Drawing:
        drawing = Drawing(2.7)
        axes = drawing.axes
        axes.set_xscale("log")
        styles = method_styles(content["methods"], {one["method"] for one in known.values()})
        rungs = sorted({row["n_documents"] for row in table})
        for n_documents in rungs:
            axes.axvline(n_documents, color=GREY, linewidth=0.4, alpha=0.5, zorder=0.5)
        for experiment in known:
            ran = race["experiments"][experiment]
            style, path = styles[known[experiment]["method"]], ran["path"]
            axes.plot(
                [n for n, _ in path], [acc for _, acc in path], color=style.colour, linewidth=0.7, alpha=0.7, zorder=1.2
            )
            (n_documents, accuracy), is_stopped = path[-1], ran["stopped_by"] is not None
            tip = f"{experiment}\n{format_fixed(accuracy)}\n{n_documents:,} {texts('race.documents')}"
            # A control is a cross, which has no face: its line is thinner where it stopped.
            properties: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 0.7} if is_stopped else {}
            drawing.point(axes, n_documents, accuracy, style, tip, markersize=4.2, zorder=2, **properties)
        _label_documents(drawing, rungs)
        axes.set_ylim(limits([row["acc_mean"] for row in table]))
        axes.set_xlabel(texts("f.race.axis"))
        axes.set_ylabel(texts("f.acc_axis"))
        handles = [
            line_handle(method, marker=style.marker, color=style.colour, linestyle="none", **style.properties)
            for method, style in styles.items()
        ]
        stopped = line_handle(
            texts("f.race.stopped"), marker="o", color=INK, linestyle="none", markerfacecolor="white"
        )  # fmt: skip
        went_on = line_handle(texts("f.race.went_on"), marker="o", color=INK, linestyle="none")
        drawing.legend_of([*handles, stopped, went_on])
        return drawing

    alt = texts(
        "f.race.alt", n=len(race["experiments"]), stopped=len(race["experiments"]) - len(survivors),
        survivors=texts("list.separator").join(survivors[:6]),
    )  # fmt: skip
    return Figure(name, caption, alt, table, draw)


def race_table(race: Content) -> list[Row]:
    """Return the accuracy of each experiment after each rung that it answered; empty if documents are not known."""
    if race["common"] is None:
        return []
    return [
        {
            "experiment": name,
            "method": race["common"]["experiments"][name]["method"],
            "control": race["common"]["experiments"][name]["control"],
            "n_documents": n_documents,
            "acc_mean": accuracy,
            "stopped_by": ran["stopped_by"] if n_documents == ran["n_documents"] else None,
        }
        for name, ran in race["experiments"].items()
        if name in race["common"]["experiments"]
        for n_documents, accuracy in ran["path"]
    ]


def _label_documents(drawing: Drawing, rungs: list[int]) -> None:
    """Label the axis at the rungs, without those that would overlap."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    axes = drawing.axes
    axes.set_xlim(min(rungs) / 1.15, max(rungs) * 1.15)
    shown: list[int] = []
    for n_documents in reversed(rungs):
        if not shown or n_documents <= shown[-1] / (max(rungs) / min(rungs)) ** 0.15:
            shown.append(n_documents)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
