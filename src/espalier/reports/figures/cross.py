"""Figures that compare all models at one pruning ratio."""

from __future__ import annotations

from espalier.reports.figures.vega import INK, PALETTE, PANEL_WIDTH, Figure, channel, empty_figure, layer, tooltip
from espalier.reports.formatting import format_fixed, format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content


def cross_figures(texts: Texts, content: Content) -> list[Figure]:
    """Draw the figures that compare all models at one pruning ratio."""
    return [_best_vs_baseline_figure(texts, content), _base_vs_instruct_figure(texts, content)]


def _best_vs_baseline_figure(texts: Texts, content: Content) -> Figure:
    """Draw the best experiment of each model, with its interval, and the unpruned model."""
    name, caption = "best_vs_baseline", texts("f.best")
    configs = sorted(content["best_configs"], key=lambda row: (-row["acc_mean"], row["model"]))
    if not configs:
        return empty_figure(name, caption, texts("f.best.none"))
    methods = list(content["method_distribution"]["overall"])  # the same colours at every ratio
    rows = [
        {
            "model": row["model"], "method": row["method"], "experiment": row["experiment"], "acc": row["acc_mean"],
            "low": (row["acc_mean_interval"] or [None])[0], "high": (row["acc_mean_interval"] or [None])[-1],
            "unpruned": row["baseline_acc_mean"],
        }
        for row in configs
    ]  # fmt: skip
    y = channel("model", None, "nominal", sort=[row["model"] for row in rows])
    x = channel("acc", texts("f.acc_axis"), scale={"zero": False})
    colour = channel("method", texts("method"), "nominal", scale={"domain": methods, "range": list(PALETTE)})
    shown = tooltip(("model", texts("x.model")), ("experiment", texts("experiment")), ("acc", texts("f.acc_axis")))
    panel = {
        "width": PANEL_WIDTH,
        "height": {"step": 34},
        "data": {"values": rows},
        "layer": [
            layer({"type": "rule", "color": "#bbb"}, {"y": y, "x": x, "x2": {"field": "unpruned"}},
                  transform=[{"filter": "datum.unpruned != null"}]),
            layer({"type": "rule", "color": INK, "strokeWidth": 2}, {"y": y, "x": x | {"field": "low"},
                  "x2": {"field": "high"}}, transform=[{"filter": "datum.low != null"}]),
            layer({"type": "point", "size": 80, "stroke": INK, "fill": "white", "fillOpacity": 1},
                  {"y": y, "x": x | {"field": "unpruned"}}, transform=[{"filter": "datum.unpruned != null"}]),
            layer({"type": "point", "filled": True, "size": 80, "opacity": 1}, {"y": y, "x": x, "color": colour,
                  "shape": channel("method", texts("method"), "nominal", scale={"domain": methods}), "tooltip": shown}),
        ],
    }  # fmt: skip
    description = ", ".join(
        texts("f.best.one", model=row["model"], acc=format_fixed(row["acc_mean"]), kept=format_percent(row["acc_kept"]))
        for row in configs
    )
    return Figure(name, (panel,), caption, texts("f.best.alt", words=description))


def _base_vs_instruct_figure(texts: Texts, content: Content) -> Figure:
    """Draw base and instruct accuracy of each family: of the best experiments, and averaged over common settings."""
    name, caption = "base_vs_instruct", texts("f.kinds")
    pairs = [one for one in content["base_vs_instruct"] if one["reason"] is None]
    if not pairs:
        return empty_figure(name, caption, texts("f.kinds.none"))
    titles = {"best": texts("f.kinds.of_best"), "common": texts("f.kinds.of_common")}
    rows = []
    for one in pairs:
        rows.append({"family": one["family"], "of": "best", "base": one["base_acc"], "instruct": one["instruct_acc"]})
        if (common := one["common_settings"]) and common["n"]:
            values = {"base": common["base"], "instruct": common["instruct"]}
            rows.append({"family": one["family"], "of": "common"} | values)
    kind_titles = [texts("kind.base"), texts("kind.instruct")]
    points = [
        {"family": row["family"], "of": titles[row["of"]], "kind": title, "acc": row[kind]}
        for row in rows
        for kind, title in zip(("base", "instruct"), kind_titles, strict=True)
    ]
    lines = [row | {"of": titles[row["of"]]} for row in rows]
    y = channel("family", None, "nominal", sort=[one["family"] for one in pairs])
    offset = {"field": "of", "type": "nominal", "scale": {"domain": list(titles.values())}}
    x = channel("acc", texts("f.acc_axis"), scale={"zero": False})
    colour = channel("kind", None, "nominal", scale={"domain": kind_titles, "range": list(PALETTE[:2])})
    shape = channel("kind", None, "nominal", scale={"domain": kind_titles, "range": ["circle", "square"]})
    dash = channel("of", None, "nominal", scale={"domain": list(titles.values()), "range": [[1, 0], [4, 3]]})
    shown = tooltip(("family", texts("x.family")), ("of", " "), ("kind", texts("x.kind")), ("acc", texts("f.acc_axis")))
    panel = {
        "width": PANEL_WIDTH,
        "height": 56 * len(pairs),
        "layer": [
            layer({"type": "rule", "color": "#555", "strokeWidth": 1.6}, {"y": y, "yOffset": offset,
                  "x": x | {"field": "base"}, "x2": {"field": "instruct"}, "strokeDash": dash}, data={"values": lines}),
            layer({"type": "point", "filled": True, "size": 75, "opacity": 1}, {"y": y, "yOffset": offset, "x": x,
                  "color": colour, "shape": shape, "tooltip": shown}, data={"values": points}),
        ],
    }  # fmt: skip
    description = ", ".join(f"{one['family']} {format_percent(one['relative_change'], sign=True)}" for one in pairs)
    return Figure(name, (panel,), caption, texts("f.kinds.alt", words=description))
