"""Figures of one model at one pruning ratio: accuracy by method, setting, perplexity, experiment and task."""

from __future__ import annotations

from typing import Any

from espalier.reports.figures.tasks import task_profile
from espalier.reports.figures.vega import (
    COLOURS,
    GREY,
    INK,
    WIDTH,
    Figure,
    Spec,
    axis,
    layer,
    look,
    nothing,
    tooltip,
)
from espalier.reports.messages import Words
from espalier.reports.rows import Row
from espalier.reports.sections.base import MISSING, Content, fixed, interval


def ratio_figures(words: Words, content: Content, rows: list[Row]) -> list[Figure]:
    """Draw the figures of one model at one pruning ratio.

    Args:
        words: Language.
        content: Results of the model at that ratio.
        rows: Experiments at that ratio (`espalier.reports.rows.experiment_rows`).
    """
    return [
        _accuracy_by_method(words, content, rows),
        _accuracy_by_setting(words, content, rows),
        _accuracy_perplexity(words, content, rows),
        _intervals(words, content, rows),
        task_profile(words, content, rows),
    ]


def _accuracy_by_method(words: Words, content: Content, rows: list[Row]) -> Figure:
    """Draw the accuracy of each experiment by method, with intervals, method means and the unpruned model."""
    name, caption = "accuracy_by_method", words("f.method")
    methods = [method for method, one in content["methods"].items() if one["n"]]
    if not methods:
        return nothing(name, caption, words("f.none"))
    placed = [row | {"place": sum(1 for o in rows[:n] if o["method"] == row["method"])} for n, row in enumerate(rows)]
    most = max(content["methods"][method]["n"] for method in methods)
    hidden = [one | {"legend": None} for one in look({m: content["methods"][m] for m in methods})]
    y = axis("method", None, "nominal", sort=methods, scale={"domain": methods})
    offset = {"field": "place", "type": "ordinal"}
    x = _accuracy(words, "acc", content, rows)
    means = [{"method": m, "mean": content["methods"][m]["mean"]} for m in methods]
    tick = {"type": "tick", "color": INK, "thickness": 2}
    panel = {
        "width": WIDTH,
        "height": len(methods) * max(44, 7 * most + 14),
        "data": {"values": placed},
        "layer": [
            layer(_rule(), {"y": y, "yOffset": offset, "x": x, "x2": {"field": "high"}}, transform=[_low()]),
            layer(
                {"type": "point", "filled": True, "size": 42},
                {"y": y, "yOffset": offset, "x": x, "color": hidden[0], "shape": hidden[1], "tooltip": _tooltip(words)},
            ),
            layer(tick, {"y": y, "x": x | {"field": "mean"}}, data={"values": means}),
            *_baseline_rule(content, x),
        ],
    }  # fmt: skip
    said = ", ".join(
        words("f.mean", name=m, mean=fixed(content["methods"][m]["mean"]), n=content["methods"][m]["n"])
        for m in methods
    )
    alt = words("f.method.alt", means=said) + _baseline_words(words, content)
    return Figure(name, (panel,), caption + _baseline_note(words, content), alt)


def _accuracy_by_setting(words: Words, content: Content, rows: list[Row]) -> Figure:
    """Draw mean accuracy by sequence length and number of samples, with one heat map per method."""
    name, caption = "accuracy_by_setting", words("f.setting")
    having = [row for row in rows if row["seq_len"] and row["samples"] and not row["control"]]
    if not having:
        return nothing(name, caption, words("f.setting.none"))
    low, high = min(row["acc"] for row in having), max(row["acc"] for row in having)
    methods = [method for method in content["methods"] if any(row["method"] == method for row in having)]
    cells = {method: _cells(words, [row for row in having if row["method"] == method]) for method in methods}
    lengths, counts = ([*sorted({row[key] for row in having})] for key in ("seq_len", "samples"))
    scale = {"scheme": "cividis", "domain": [low, high if high > low else low + 1e-9]}
    panels = tuple(_heat_map(words, method, cells[method], lengths, counts, scale) for method in methods)
    highest = {method: max(found, key=lambda cell: cell["acc"]) for method, found in cells.items()}
    said = "; ".join(
        words("f.setting.cell", method=method, seq_len=cell["seq_len"], samples=cell["samples"])
        for method, cell in highest.items()
    )
    return Figure(name, panels, caption, words("f.setting.alt", cells=said))


def _cells(words: Words, rows: list[Row]) -> list[Row]:
    """Average the experiments of each setting over calibration seeds. Single experiments keep their interval."""
    settings: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        settings.setdefault((row["seq_len"], row["samples"]), []).append(row)
    cells = []
    for (length, count), found in settings.items():
        mean, one = sum(row["acc"] for row in found) / len(found), found[0]
        ends = None if len(found) > 1 or one["low"] is None else (one["low"], one["high"])
        shown = {"label": fixed(mean, 3), "interval": interval(words, ends)}
        cells.append({"seq_len": length, "samples": count, "acc": mean} | shown)
    return cells


def _heat_map(words: Words, method: str, cells: list[Row], lengths: list[int], counts: list[int], scale: Spec) -> Spec:
    x = axis("samples", words("f.samples"), "ordinal", scale={"domain": counts}, axis={"labelAngle": 0})
    y = axis("seq_len", words("seq_len"), "ordinal", scale={"domain": lengths})
    low, high = scale["domain"]
    middle = low + 0.42 * (high - low)  # white and black text are equally readable here
    text = {"condition": {"test": f"datum.acc < {middle!r}", "value": "white"}, "value": "black"}
    names = {"seq_len": "f.seq_len", "samples": "f.samples", "label": "f.acc_axis", "interval": "ci"}
    shown = tooltip(*((field, words(code)) for field, code in names.items()))
    return {
        "width": 150,
        "height": 34 * len(lengths),
        "title": {"text": method},
        "data": {"values": cells},
        "encoding": {"x": x, "y": y, "tooltip": shown},
        "layer": [
            layer({"type": "rect", "stroke": "white"}, {"color": axis("acc", None, scale=scale, legend=None)}),
            layer({"type": "text", "fontSize": 11}, {"text": {"field": "label"}, "color": text}),
        ],
    }


def _accuracy_perplexity(words: Words, content: Content, rows: list[Row]) -> Figure:
    """Draw accuracy against the perplexity of the first text, with the unpruned model as a star."""
    text = content["ppl_accuracy"]["text"]
    name, caption = "accuracy_perplexity", words("f.ppl", text=text or MISSING)
    having = [row for row in rows if row["ppl"]]
    if not text or not having:
        return nothing(name, caption, words("f.ppl.none"))
    values = [row["ppl"] for row in having]
    methods = {m: one for m, one in content["methods"].items() if any(row["method"] == m for row in having)}
    colour, shape = look(methods)
    kind = "log" if max(values) > 20 * min(values) else "linear"
    x = axis("ppl", words("ppl.of", text=text), scale={"type": kind, "zero": False, "nice": False, "padding": 12})
    x["axis"] = {"tickCount": 6, "format": "~g"}
    y = _accuracy(words, "acc", content, having)
    layers = [
        layer(_rule(), {"x": x, "y": y, "y2": {"field": "high"}}, transform=[_low()]),
        layer(
            {"type": "point", "filled": True, "size": 55, "opacity": 0.85},
            {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": [*_tooltip(words), _ppl_tip(words)]},
        ),
    ]
    baseline = content["baseline"]
    if baseline and baseline["ppl"]:
        caption += words("f.ppl.star")
        star = [{"ppl": baseline["ppl"], "acc": baseline["acc_mean"], "name": words("unpruned")}]
        mark = {"type": "text", "text": "★", "fontSize": 20, "color": INK}
        layers.append(layer(mark, {"x": x, "y": y, "tooltip": tooltip(("name", " "))}, data={"values": star}))
    panel = {"width": WIDTH, "height": 300, "data": {"values": having}, "layer": layers}
    one = content["ppl_accuracy"]
    if one["r"] is None:
        said = words("r.undefined", reason=words.reason(one))
    else:
        said = words("r.defined", r=fixed(one["r"], 3), n=one["n"])
    return Figure(name, (panel,), caption, words("f.ppl.alt", n=len(having), r=said))


def _intervals(words: Words, content: Content, rows: list[Row]) -> Figure:
    """Draw all experiments by accuracy with intervals. Filled points cannot be distinguished from the best."""
    name, caption = "intervals", words("f.intervals")
    if not rows:
        return nothing(name, caption, words("f.none"))
    kinds = [words("f.in_set"), words("f.out_of_set"), words("f.control")]
    named = [row | {"set": kinds[2 if row["in_set"] is None else 0 if row["in_set"] else 1]} for row in rows]
    domain = [kind for kind in kinds if any(row["set"] == kind for row in named)]
    colours = dict(zip(kinds, (COLOURS[0], COLOURS[1], GREY), strict=True))
    colour = axis("set", None, "nominal", scale={"domain": domain, "range": [colours[kind] for kind in domain]})
    fill = {"condition": {"test": "datum.in_set === true", "value": COLOURS[0]}, "value": "white"}
    names = [row["experiment"] for row in rows]
    y = axis("experiment", None, "nominal", sort=names, scale={"domain": names})
    x = _accuracy(words, "acc", content, rows)
    panel = {
        "width": WIDTH,
        "height": {"step": 17},
        "data": {"values": named},
        "layer": [
            layer(_rule(), {"y": y, "x": x, "x2": {"field": "high"}}, transform=[_low()]),
            layer(
                {"type": "point", "size": 50, "strokeWidth": 1.6, "fillOpacity": 1},
                {"y": y, "x": x, "stroke": colour, "fill": fill, "tooltip": _tooltip(words)},
            ),
            *_baseline_rule(content, x),
        ],
    }
    found = content["uncertainty"]["set"]
    best = content["best"]["experiment"] if content["best"] else MISSING
    alt = words("f.intervals.alt", n=len(rows), members=found["n_members"] if found else MISSING, best=best)
    return Figure(name, (panel,), caption + _baseline_note(words, content), alt)


def _accuracy(words: Words, field: str, content: Content, rows: list[Row]) -> Spec:
    """Return the accuracy axis, wide enough for all intervals and the unpruned model."""
    values = [row[key] for row in rows for key in ("acc", "low", "high") if row[key] is not None]
    if content["baseline"]:
        values.append(content["baseline"]["acc_mean"])
    margin = 0.03 * (max(values) - min(values)) or 0.01
    domain = [max(0, min(values) - margin), min(1, max(values) + margin)]
    return axis(field, words("f.acc_axis"), scale={"domain": domain, "nice": False, "zero": False})


def _rule() -> Spec:
    return {"type": "rule", "color": "#777", "strokeWidth": 1.4}


def _low() -> Spec:
    """Return a transform that starts a rule at the lower end of the interval, or at the accuracy without interval."""
    return {"calculate": "datum.low == null ? datum.acc : datum.low", "as": "acc"}


def _baseline_rule(content: Content, x: Spec) -> list[Spec]:
    if not content["baseline"]:
        return []
    mark = {"type": "rule", "color": INK, "strokeDash": [4, 3]}
    return [layer(mark, {"x": x}, data={"values": [{"acc": content["baseline"]["acc_mean"]}]})]


def _baseline_words(words: Words, content: Content) -> str:
    baseline: dict[str, Any] | None = content["baseline"]
    return words("f.unpruned.alt", acc=fixed(baseline["acc_mean"])) if baseline else ""


def _baseline_note(words: Words, content: Content) -> str:
    return f" ({words('f.unpruned')})" if content["baseline"] else ""


def _tooltip(words: Words) -> list[Spec]:
    names = (("experiment", "experiment"), ("acc", "f.acc_axis"), ("low", "p.low"), ("high", "p.high"))
    shown = tooltip(*((field, words(code)) for field, code in names))
    return [shown[0], *(one | {"type": "quantitative", "format": ".4f"} for one in shown[1:])]


def _ppl_tip(words: Words) -> Spec:
    return {"field": "ppl", "title": words("ppl"), "type": "quantitative", "format": ".2f"}
