"""Figure of the accuracy per task: best experiment of each method, unpruned model, interval of the best."""

from __future__ import annotations

from espalier.reports.figures.vega import INK, WIDTH, Figure, axis, layer, look, nothing, tooltip
from espalier.reports.messages import Words
from espalier.reports.rows import Row
from espalier.reports.sections.base import Content, fixed


def task_profile(words: Words, content: Content, rows: list[Row]) -> Figure:
    """Draw the accuracy per task: best experiment of each method, unpruned model, interval of the best."""
    name, caption, best = "task_profile", words("f.tasks"), content["best"]
    if best is None or not best["tasks"]:
        return nothing(name, caption, words("f.none"))
    first = _best_of_methods(rows, best)
    methods = {m: one for m, one in content["methods"].items() if m in first}
    unpruned = words("unpruned")
    colour, shape = look(methods | ({unpruned: {"control": False}} if content["baseline"] else {}), "who")
    if content["baseline"]:
        caption += words("f.tasks.unpruned")
        colour["scale"]["range"][-1], shape["scale"]["range"][-1] = INK, "diamond"
    y = axis("task", None, "nominal", sort=list(best["tasks"]))
    x = axis("acc", words("f.task_axis"), scale={"zero": False, "nice": True})
    shown = tooltip(("task", words("result")), ("experiment", words("experiment")), ("acc", words("acc")))
    rule = {"type": "rule", "color": "#777", "strokeWidth": 1.4}
    mark = {"type": "point", "filled": True, "size": 70, "opacity": 0.9, "strokeWidth": 2}
    bars, points = _task_bars(content), _task_points(content, first, unpruned)
    panel = {
        "width": WIDTH,
        "height": {"step": 30},
        "layer": [
            layer(rule, {"y": y, "x": x | {"field": "low"}, "x2": {"field": "high"}}, data={"values": bars}),
            layer(mark, {"y": y, "x": x, "color": colour, "shape": shape, "tooltip": shown}, data={"values": points}),
        ],
    }
    said = ", ".join(f"{task} {fixed(acc)}" for task, acc in best["tasks"].items())
    return Figure(name, (panel,), caption, words("f.tasks.alt", best=best["experiment"], tasks=said))


def _best_of_methods(rows: list[Row], best: Content) -> dict[str, Row]:
    """Return the best experiment of each method without controls. `rows` must be ordered best first."""
    first: dict[str, Row] = {}
    for row in rows:
        if not row["control"]:
            first.setdefault(row["method"], row)
    return first | {best["method"]: next(row for row in rows if row["experiment"] == best["experiment"])}


def _task_points(content: Content, first: dict[str, Row], unpruned: str) -> list[Row]:
    points = [
        {"task": task, "acc": acc, "who": method, "experiment": row["experiment"]}
        for method, row in first.items()
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
