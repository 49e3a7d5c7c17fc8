"""Figure of accuracy kept against parameters kept, at all pruning ratios of one model."""

from __future__ import annotations

from collections.abc import Mapping

from espalier.reports.chart_rows import Row
from espalier.reports.figures.drawing import (
    INK,
    INTERVAL,
    Drawing,
    Figure,
    Style,
    empty_figure,
    method_styles,
    percent_axis,
)
from espalier.reports.formatting import format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.introduction import by_ratio
from espalier.reports.sections.types import Content


def accuracy_size(texts: Texts, analysis: Content, rows: Mapping[str, list[Row]]) -> Figure:
    """Draw the accuracy that each experiment keeps against the parameters that it keeps, with the Pareto front.

    Without the number of parameters of the unpruned model, the requested ratio is used.

    Args:
        texts: Texts in the language of the report.
        analysis: Analysis of the model.
        rows: Experiments of each pruning ratio, by the key of the ratio in the analysis.
    """
    name, caption = "accuracy_size", texts("f.size")
    unpruned = ((analysis["costs"] or {}).get("baseline") or {}).get("n_params")
    table = [
        {
            "experiment": row["experiment"], "method": row["method"], "control": row["control"],
            "pruning_ratio": row["ratio"], "n_params": row["n_params"],
            "params_kept": row["n_params"] / unpruned if row["n_params"] and unpruned else 1 - row["ratio"],
            "acc_kept": row["acc_kept"],
            "acc_kept_low": (row["kept_interval"] or [None])[0], "acc_kept_high": (row["kept_interval"] or [None])[-1],
        }
        for key, _ in by_ratio(analysis)
        for row in rows.get(key, [])
        if row["acc_kept"] is not None
    ]  # fmt: skip
    if not table:
        return empty_figure(name, caption, texts("f.size.none"))
    front = pareto_front([row for row in table if not row["control"]])
    for row in table:
        row["on_front"] = row in front

    def draw() -> Drawing:
        drawing = Drawing(2.6)
        axes = drawing.axes
        methods = {method: one for _, content in by_ratio(analysis) for method, one in content["methods"].items()}
        styles = method_styles(methods, {row["method"] for row in table})
        line = [(row["params_kept"], row["acc_kept"]) for row in front]
        if not any(row["acc_kept"] >= 1 for row in front):  # else an experiment is smaller and as good
            line.insert(0, (1.0, 1.0))
        axes.plot([x for x, _ in line], [y for _, y in line], color=INK, linewidth=0.7, zorder=1.2)
        shift = {method: 0.004 * (place - (len(styles) - 1) / 2) for place, method in enumerate(styles)}
        for row in table:
            x = row["params_kept"] + shift[row["method"]]
            ends = None if row["acc_kept_low"] is None else (row["acc_kept_low"], row["acc_kept_high"])
            if ends:
                axes.plot([x, x], ends, color=INTERVAL, linewidth=0.7, zorder=1.5)
            shown = format_percent(row["acc_kept"])
            if ends:
                low, high = map(format_percent, ends)
                shown += f" ({texts('interval', low=low, high=high)})"
            tip = f"{row['experiment']}\n{texts('kept')} {shown}\n{row['n_params'] or '?'} {texts('params')}"
            drawing.point(axes, x, row["acc_kept"], styles[row["method"]], tip, markersize=4)
        star = Style(INK, "*", {"markersize": 8})
        drawing.point(axes, 1, 1, star, texts("unpruned"), markersize=8)
        percent_axis(axes.xaxis, ticks=[1.0, *(1 - row["pruning_ratio"] for row in table)])
        percent_axis(axes.yaxis)
        axes.set_xlabel(texts("f.params_kept"))
        axes.set_ylabel(texts("f.acc_kept"))
        drawing.legend(styles | {texts("unpruned"): star})
        return drawing

    words = ", ".join(f"{row['experiment']} {format_percent(row['acc_kept'])}" for row in front[:6])
    return Figure(name, caption, texts("f.size.alt", words=words), table, draw)


def pareto_front(table: list[Row]) -> list[Row]:
    """Return the rows that no other row beats in `params_kept` (less) and `acc_kept` (more), largest first.

    Sizes are compared in thousandths of the model: plans of one ratio differ by single channels.
    """

    def beats(other: Row, row: Row) -> bool:
        size, other_size = (round(one["params_kept"], 3) for one in (row, other))
        is_no_worse: bool = other_size <= size and other["acc_kept"] >= row["acc_kept"]
        return is_no_worse and bool(other_size < size or other["acc_kept"] > row["acc_kept"])

    front = [row for row in table if not any(beats(other, row) for other in table)]
    return sorted(front, key=lambda row: (-row["params_kept"], -row["acc_kept"], row["experiment"]))
