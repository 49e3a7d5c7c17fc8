"""Figure of the accuracy per task: best experiment of each method, unpruned model, interval of the best."""

from __future__ import annotations

from espalier.reports.chart_rows import Row
from espalier.reports.figures.vega import (
    INK,
    PANEL_WIDTH,
    Figure,
    Style,
    channel,
    empty_figure,
    layer,
    method_channels,
    tooltip,
)
from espalier.reports.formatting import format_fixed
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content


def task_profile(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Draw the accuracy per task: best experiment of each method, unpruned model, interval of the best."""
    name, caption, best = "task_profile", texts("f.tasks"), content["best"]
    if best is None or not best["tasks"]:
        return empty_figure(name, caption, texts("f.none"))
    best_rows = _best_of_methods(rows, best)
    unpruned = texts("unpruned")
    extra = {unpruned: Style(INK, "diamond")} if content["baseline"] else {}
    colour, shape = method_channels(content["methods"], best_rows, field="who", extra=extra)
    if content["baseline"]:
        caption += texts("f.tasks.unpruned")
    y = channel("task", None, "nominal", sort=list(best["tasks"]))
    x = channel("acc", texts("f.task_axis"), scale={"zero": False, "nice": True})
    shown = tooltip(("task", texts("result")), ("experiment", texts("experiment")), ("acc", texts("acc")))
    rule = {"type": "rule", "color": "#777", "strokeWidth": 1.4}
    mark = {"type": "point", "filled": True, "size": 70, "opacity": 0.9, "strokeWidth": 2}
    bars, points = _task_bars(content), _task_points(content, best_rows, unpruned)
    panel = {
        "width": PANEL_WIDTH,
        "height": {"step": 30},
        "layer": [
            layer(rule, {"y": y, "x": x | {"field": "low"}, "x2": {"field": "high"}}, data={"values": bars}),
            layer(mark, {"y": y, "x": x, "color": colour, "shape": shape, "tooltip": shown}, data={"values": points}),
        ],
    }
    description = ", ".join(f"{task} {format_fixed(acc)}" for task, acc in best["tasks"].items())
    return Figure(name, (panel,), caption, texts("f.tasks.alt", best=best["experiment"], tasks=description))


def _best_of_methods(rows: list[Row], best: Content) -> dict[str, Row]:
    """Return the best experiment of each method without controls. `rows` must be ordered best first."""
    best_rows: dict[str, Row] = {}
    for row in rows:
        if not row["control"]:
            best_rows.setdefault(row["method"], row)
    return best_rows | {best["method"]: next(row for row in rows if row["experiment"] == best["experiment"])}


def _task_points(content: Content, best_rows: dict[str, Row], unpruned: str) -> list[Row]:
    points = [
        {"task": task, "acc": acc, "who": method, "experiment": row["experiment"]}
        for method, row in best_rows.items()
        for task, acc in row["tasks"].items()
    ]
    tasks = content["baseline"]["tasks"].items() if content["baseline"] else ()
    names = {"who": unpruned, "experiment": unpruned}
    return points + [{"task": task, "acc": acc} | names for task, acc in tasks if acc is not None]


def _task_bars(content: Content) -> list[Row]:
    """Return the 95% interval per task of the best experiment: accuracy ± 1.96 standard errors, cut to 0-1."""
    best = content["best"]
    stderr = content["uncertainty"]["experiments"].get(best["experiment"], {}).get("task_stderr", {})
    return [
        {"task": task, "low": max(0, acc - 1.96 * stderr[task]), "high": min(1, acc + 1.96 * stderr[task])}
        for task, acc in best["tasks"].items()
        if stderr.get(task) is not None
    ]
