"""Figures of one model at one pruning ratio: accuracy by method, setting, perplexity, experiment and task."""

from __future__ import annotations

from typing import Any

from espalier.reports.chart_rows import Row
from espalier.reports.figures.task_profile import task_profile
from espalier.reports.figures.vega import (
    GREY,
    INK,
    PALETTE,
    PANEL_WIDTH,
    Figure,
    Spec,
    channel,
    empty_figure,
    layer,
    method_channels,
    tooltip,
)
from espalier.reports.formatting import MISSING, format_fixed, format_interval
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content


def ratio_figures(texts: Texts, content: Content, rows: list[Row]) -> list[Figure]:
    """Draw the figures of one model at one pruning ratio.

    Args:
        texts: Texts in the language of the report.
        content: Results of the model at that ratio.
        rows: Experiments at that ratio (`espalier.reports.chart_rows.experiment_chart_rows`).
    """
    return [
        _accuracy_by_method(texts, content, rows),
        _accuracy_by_setting(texts, content, rows),
        _accuracy_perplexity(texts, content, rows),
        _intervals(texts, content, rows),
        task_profile(texts, content, rows),
    ]


def _accuracy_by_method(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Draw the accuracy of each experiment by method, with intervals, method means and the unpruned model."""
    name, caption = "accuracy_by_method", texts("f.method")
    methods = [method for method, one in content["methods"].items() if one["n"]]
    if not methods:
        return empty_figure(name, caption, texts("f.none"))
    placed = [row | {"place": sum(1 for o in rows[:n] if o["method"] == row["method"])} for n, row in enumerate(rows)]
    most = max(content["methods"][method]["n"] for method in methods)
    hidden = [encoding | {"legend": None} for encoding in method_channels(content["methods"], methods)]
    y = channel("method", None, "nominal", sort=methods, scale={"domain": methods})
    offset = {"field": "place", "type": "ordinal"}
    x = _accuracy_channel(texts, "acc", content, rows)
    means = [{"method": m, "mean": content["methods"][m]["mean"]} for m in methods]
    tick = {"type": "tick", "color": INK, "thickness": 2}
    panel = {
        "width": PANEL_WIDTH,
        "height": len(methods) * max(44, 7 * most + 14),
        "data": {"values": placed},
        "layer": [
            layer(_interval_rule(), {"y": y, "yOffset": offset, "x": x, "x2": {"field": "high"}},
                  transform=[_start_at_low()]),
            layer(
                {"type": "point", "filled": True, "size": 42},
                {"y": y, "yOffset": offset, "x": x, "color": hidden[0], "shape": hidden[1], "tooltip": _tooltip(texts)},
            ),
            layer(tick, {"y": y, "x": x | {"field": "mean"}}, data={"values": means}),
            *_baseline_rule(content, x),
        ],
    }  # fmt: skip
    description = ", ".join(
        texts("f.mean", name=m, mean=format_fixed(content["methods"][m]["mean"]), n=content["methods"][m]["n"])
        for m in methods
    )
    alt = texts("f.method.alt", means=description) + _describe_baseline(texts, content)
    return Figure(name, (panel,), caption + _baseline_note(texts, content), alt)


def _accuracy_by_setting(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Draw mean accuracy by sequence length and number of samples, with one heat map per method."""
    name, caption = "accuracy_by_setting", texts("f.setting")
    with_setting = [row for row in rows if row["seq_len"] and row["samples"] and not row["control"]]
    if not with_setting:
        return empty_figure(name, caption, texts("f.setting.none"))
    low, high = min(row["acc"] for row in with_setting), max(row["acc"] for row in with_setting)
    methods = [method for method in content["methods"] if any(row["method"] == method for row in with_setting)]
    cells = {method: _cells(texts, [row for row in with_setting if row["method"] == method]) for method in methods}
    lengths, counts = ([*sorted({row[key] for row in with_setting})] for key in ("seq_len", "samples"))
    scale = {"scheme": "cividis", "domain": [low, high if high > low else low + 1e-9]}
    panels = tuple(_heat_map(texts, method, cells[method], lengths, counts, scale) for method in methods)
    highest = {method: max(method_cells, key=lambda cell: cell["acc"]) for method, method_cells in cells.items()}
    description = "; ".join(
        texts("f.setting.cell", method=method, seq_len=cell["seq_len"], samples=cell["samples"])
        for method, cell in highest.items()
    )
    return Figure(name, panels, caption, texts("f.setting.alt", cells=description))


def _cells(texts: Texts, rows: list[Row]) -> list[Row]:
    """Average the experiments of each setting over calibration seeds. Single experiments keep their interval."""
    settings: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        settings.setdefault((row["seq_len"], row["samples"]), []).append(row)
    cells = []
    for (length, count), of_setting in settings.items():
        mean, one = sum(row["acc"] for row in of_setting) / len(of_setting), of_setting[0]
        ends = None if len(of_setting) > 1 or one["low"] is None else (one["low"], one["high"])
        shown = {"label": format_fixed(mean, 3), "interval": format_interval(texts, ends)}
        cells.append({"seq_len": length, "samples": count, "acc": mean} | shown)
    return cells


def _heat_map(texts: Texts, method: str, cells: list[Row], lengths: list[int], counts: list[int], scale: Spec) -> Spec:
    x = channel("samples", texts("f.samples"), "ordinal", scale={"domain": counts}, axis={"labelAngle": 0})
    y = channel("seq_len", texts("seq_len"), "ordinal", scale={"domain": lengths})
    low, high = scale["domain"]
    middle = low + 0.42 * (high - low)  # white and black text are equally readable here
    text = {"condition": {"test": f"datum.acc < {middle!r}", "value": "white"}, "value": "black"}
    names = {"seq_len": "f.seq_len", "samples": "f.samples", "label": "f.acc_axis", "interval": "ci"}
    shown = tooltip(*((field, texts(code)) for field, code in names.items()))
    return {
        "width": 150,
        "height": 34 * len(lengths),
        "title": {"text": method},
        "data": {"values": cells},
        "encoding": {"x": x, "y": y, "tooltip": shown},
        "layer": [
            layer({"type": "rect", "stroke": "white"}, {"color": channel("acc", None, scale=scale, legend=None)}),
            layer({"type": "text", "fontSize": 11}, {"text": {"field": "label"}, "color": text}),
        ],
    }


def _accuracy_perplexity(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Draw accuracy against the perplexity of the first text, with the unpruned model as a star."""
    text = content["ppl_accuracy"]["text"]
    name, caption = "accuracy_perplexity", texts("f.ppl", text=text or MISSING)
    with_ppl = [row for row in rows if row["ppl"]]
    if not text or not with_ppl:
        return empty_figure(name, caption, texts("f.ppl.none"))
    values = [row["ppl"] for row in with_ppl]
    colour, shape = method_channels(content["methods"], [row["method"] for row in with_ppl])
    scale_type = "log" if max(values) > 20 * min(values) else "linear"
    x = channel(
        "ppl", texts("ppl.of", text=text), scale={"type": scale_type, "zero": False, "nice": False, "padding": 12}
    )
    x["axis"] = {"tickCount": 6, "format": "~g"}
    y = _accuracy_channel(texts, "acc", content, with_ppl)
    layers = [
        layer(_interval_rule(), {"x": x, "y": y, "y2": {"field": "high"}}, transform=[_start_at_low()]),
        layer(
            {"type": "point", "filled": True, "size": 55, "opacity": 0.85},
            {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": [*_tooltip(texts), _ppl_tooltip(texts)]},
        ),
    ]
    baseline = content["baseline"]
    if baseline and baseline["ppl"]:
        caption += texts("f.ppl.star")
        star = [{"ppl": baseline["ppl"], "acc": baseline["acc_mean"], "name": texts("unpruned")}]
        mark = {"type": "text", "text": "★", "fontSize": 20, "color": INK}
        layers.append(layer(mark, {"x": x, "y": y, "tooltip": tooltip(("name", " "))}, data={"values": star}))
    panel = {"width": PANEL_WIDTH, "height": 300, "data": {"values": with_ppl}, "layer": layers}
    correlation = content["ppl_accuracy"]
    if correlation["r"] is None:
        description = texts("r.undefined", reason=texts.reason(correlation))
    else:
        description = texts("r.defined", r=format_fixed(correlation["r"], 3), n=correlation["n"])
    return Figure(name, (panel,), caption, texts("f.ppl.alt", n=len(with_ppl), r=description))


def _intervals(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Draw all experiments by accuracy with intervals. Filled points cannot be distinguished from the best."""
    name, caption = "intervals", texts("f.intervals")
    if not rows:
        return empty_figure(name, caption, texts("f.none"))
    set_titles = [texts("f.in_set"), texts("f.out_of_set"), texts("f.control")]
    titled = [row | {"set": set_titles[2 if row["in_set"] is None else 0 if row["in_set"] else 1]} for row in rows]
    domain = [title for title in set_titles if any(row["set"] == title for row in titled)]
    colours = dict(zip(set_titles, (PALETTE[0], PALETTE[1], GREY), strict=True))
    colour = channel("set", None, "nominal", scale={"domain": domain, "range": [colours[title] for title in domain]})
    fill = {"condition": {"test": "datum.in_set === true", "value": PALETTE[0]}, "value": "white"}
    names = [row["experiment"] for row in rows]
    y = channel("experiment", None, "nominal", sort=names, scale={"domain": names})
    x = _accuracy_channel(texts, "acc", content, rows)
    panel = {
        "width": PANEL_WIDTH,
        "height": {"step": 17},
        "data": {"values": titled},
        "layer": [
            layer(_interval_rule(), {"y": y, "x": x, "x2": {"field": "high"}}, transform=[_start_at_low()]),
            layer(
                {"type": "point", "size": 50, "strokeWidth": 1.6, "fillOpacity": 1},
                {"y": y, "x": x, "stroke": colour, "fill": fill, "tooltip": _tooltip(texts)},
            ),
            *_baseline_rule(content, x),
        ],
    }
    in_set = content["uncertainty"]["set"]
    best = content["best"]["experiment"] if content["best"] else MISSING
    alt = texts("f.intervals.alt", n=len(rows), members=in_set["n_members"] if in_set else MISSING, best=best)
    return Figure(name, (panel,), caption + _baseline_note(texts, content), alt)


def _accuracy_channel(texts: Texts, field: str, content: Content, rows: list[Row]) -> Spec:
    """Return the accuracy axis, wide enough for all intervals and the unpruned model."""
    values = [row[key] for row in rows for key in ("acc", "low", "high") if row[key] is not None]
    if content["baseline"]:
        values.append(content["baseline"]["acc_mean"])
    margin = 0.03 * (max(values) - min(values)) or 0.01
    domain = [max(0, min(values) - margin), min(1, max(values) + margin)]
    return channel(field, texts("f.acc_axis"), scale={"domain": domain, "nice": False, "zero": False})


def _interval_rule() -> Spec:
    return {"type": "rule", "color": "#777", "strokeWidth": 1.4}


def _start_at_low() -> Spec:
    """Return a transform that starts a rule at the lower end of the interval, or at the accuracy without interval."""
    return {"calculate": "datum.low == null ? datum.acc : datum.low", "as": "acc"}


def _baseline_rule(content: Content, x: Spec) -> list[Spec]:
    if not content["baseline"]:
        return []
    mark = {"type": "rule", "color": INK, "strokeDash": [4, 3]}
    return [layer(mark, {"x": x}, data={"values": [{"acc": content["baseline"]["acc_mean"]}]})]


def _describe_baseline(texts: Texts, content: Content) -> str:
    baseline: dict[str, Any] | None = content["baseline"]
    return texts("f.unpruned.alt", acc=format_fixed(baseline["acc_mean"])) if baseline else ""


def _baseline_note(texts: Texts, content: Content) -> str:
    return f" ({texts('f.unpruned')})" if content["baseline"] else ""


def _tooltip(texts: Texts) -> list[Spec]:
    names = (("experiment", "experiment"), ("acc", "f.acc_axis"), ("low", "p.low"), ("high", "p.high"))
    shown = tooltip(*((field, texts(code)) for field, code in names))
    return [shown[0], *(one | {"type": "quantitative", "format": ".4f"} for one in shown[1:])]


def _ppl_tooltip(texts: Texts) -> Spec:
    return {"field": "ppl", "title": texts("ppl"), "type": "quantitative", "format": ".2f"}
