"""Figure of the accuracy per task: best experiment of each method, unpruned model, interval of the best."""

from __future__ import annotations

from espalier.reports.chart_rows import Row
from espalier.reports.figures.drawing import (
    INK,
    INTERVAL,
    Drawing,
    Figure,
    Style,
    empty_figure,
    limit_x,
    method_styles,
    name_axis,
)
from espalier.reports.formatting import format_fixed
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content


def task_profile(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Draw the accuracy per task: best experiment of each method, unpruned model, interval of the best."""
    name, caption, best = "task_profile", texts("f.tasks"), content["best"]
    if best is None or not best["tasks"]:
        return empty_figure(name, caption, texts("f.none"))
    tasks = list(best["tasks"])
    unpruned = texts("unpruned")
    table = _task_table(content, rows, unpruned)
    if content["baseline"]:
        caption += texts("f.tasks.unpruned")

    def draw() -> Drawing:
        drawing = Drawing(0.85 + 0.3 * len(tasks))
        axes = drawing.axes
        shown = list(dict.fromkeys(row["method"] for row in table))
        styles = method_styles(content["methods"], shown)
        if unpruned in shown:
            styles[unpruned] = Style(INK, "|", {"markersize": 9})
        name_axis(axes, tasks)
        dodged = [method for method in shown if method != unpruned]
        for row in table:
            place = float(tasks.index(row["task"]))
            if row["method"] in dodged:
                place += 0.5 * ((dodged.index(row["method"]) + 0.5) / len(dodged) - 0.5)
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [place, place], color=INTERVAL, linewidth=0.9, zorder=1.5)
            style = styles[row["method"]]
            tip = f"{row['task']}, {row['experiment']}\n{texts('acc')} {format_fixed(row['acc'])}"
            drawing.point(axes, row["acc"], place, style, tip, **({"markersize": 4} | dict(style.properties)))
        limit_x(axes, [row[key] for row in table for key in ("acc", "low", "high") if row[key] is not None])
        axes.set_xlabel(texts("f.task_axis"))
        drawing.legend(styles)
        return drawing

    description = ", ".join(f"{task} {format_fixed(acc)}" for task, acc in best["tasks"].items())
    alt = texts("f.tasks.alt", best=best["experiment"], tasks=description)
    return Figure(name, caption, alt, table, draw)


def _task_table(content: Content, rows: list[Row], unpruned: str) -> list[Row]:
    """Return one row for each task and each of the methods and the unpruned model.

    The best experiment has a 95% interval: accuracy ± 1.96 standard errors, cut to 0-1.
    """
    best = content["best"]
    stderr = content["uncertainty"]["experiments"].get(best["experiment"], {}).get("task_stderr", {})
    table = []
    for method, row in _best_of_methods(rows, best).items():
        for task, acc in row["tasks"].items():
            error = stderr.get(task) if row["experiment"] == best["experiment"] else None
            ends = (None, None) if error is None else (max(0, acc - 1.96 * error), min(1, acc + 1.96 * error))
            named = {"task": task, "method": method, "experiment": row["experiment"]}
            table.append(named | {"acc": acc, "low": ends[0], "high": ends[1]})
    tasks = content["baseline"]["tasks"].items() if content["baseline"] else ()
    nameless = {"method": unpruned, "experiment": "baseline", "low": None, "high": None}
    return table + [{"task": task, "acc": acc} | nameless for task, acc in tasks if acc is not None]


def _best_of_methods(rows: list[Row], best: Content) -> dict[str, Row]:
    """Return the best experiment of each method without controls. `rows` must be ordered best first."""
    best_rows: dict[str, Row] = {}
    for row in rows:
        if not row["control"]:
            best_rows.setdefault(row["method"], row)
    return best_rows | {best["method"]: next(row for row in rows if row["experiment"] == best["experiment"])}
