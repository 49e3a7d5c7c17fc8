"""Figures that compare all models at one pruning ratio."""

from __future__ import annotations

from espalier.reports.figures.vega import COLOURS, INK, WIDTH, Figure, axis, layer, nothing, tooltip
from espalier.reports.messages import Words
from espalier.reports.sections.base import Content, fixed, percent


def cross_figures(words: Words, content: Content) -> list[Figure]:
    """Draw the figures that compare all models at one pruning ratio."""
    return [_best_vs_baseline(words, content), _base_vs_instruct(words, content)]


def _best_vs_baseline(words: Words, content: Content) -> Figure:
    """Draw the best experiment of each model, with its interval, and the unpruned model."""
    name, caption = "best_vs_baseline", words("f.best")
    found = sorted(content["best_configs"], key=lambda row: (-row["acc_mean"], row["model"]))
    if not found:
        return nothing(name, caption, words("f.best.none"))
    methods = list(content["method_distribution"]["overall"])  # the same colours at every ratio
    rows = [
        {
            "model": row["model"], "method": row["method"], "experiment": row["experiment"], "acc": row["acc_mean"],
            "low": (row["acc_mean_interval"] or [None])[0], "high": (row["acc_mean_interval"] or [None])[-1],
            "unpruned": row["baseline_acc_mean"],
        }
        for row in found
    ]  # fmt: skip
    y = axis("model", None, "nominal", sort=[row["model"] for row in rows])
    x = axis("acc", words("f.acc_axis"), scale={"zero": False})
    colour = axis("method", words("method"), "nominal", scale={"domain": methods, "range": list(COLOURS)})
    shown = tooltip(("model", words("x.model")), ("experiment", words("experiment")), ("acc", words("f.acc_axis")))
    panel = {
        "width": WIDTH,
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
                  "shape": axis("method", words("method"), "nominal", scale={"domain": methods}), "tooltip": shown}),
        ],
    }  # fmt: skip
    said = ", ".join(
        words("f.best.one", model=row["model"], acc=fixed(row["acc_mean"]), kept=percent(row["acc_kept"]))
        for row in found
    )
    return Figure(name, (panel,), caption, words("f.best.alt", words=said))


def _base_vs_instruct(words: Words, content: Content) -> Figure:
    """Draw base and instruct accuracy of each family: of the best experiments, and averaged over common settings."""
    name, caption = "base_vs_instruct", words("f.kinds")
    pairs = [one for one in content["base_vs_instruct"] if one["reason"] is None]
    if not pairs:
        return nothing(name, caption, words("f.kinds.none"))
    titles = {"best": words("f.kinds.of_best"), "common": words("f.kinds.of_common")}
    rows = []
    for one in pairs:
        rows.append({"family": one["family"], "of": "best", "base": one["base_acc"], "instruct": one["instruct_acc"]})
        if (common := one["common_settings"]) and common["n"]:
            values = {"base": common["base"], "instruct": common["instruct"]}
            rows.append({"family": one["family"], "of": "common"} | values)
    kinds = [words("kind.base"), words("kind.instruct")]
    points = [
        {"family": row["family"], "of": titles[row["of"]], "kind": title, "acc": row[kind]}
        for row in rows
        for kind, title in zip(("base", "instruct"), kinds, strict=True)
    ]
    lines = [row | {"of": titles[row["of"]]} for row in rows]
    y = axis("family", None, "nominal", sort=[one["family"] for one in pairs])
    offset = {"field": "of", "type": "nominal", "scale": {"domain": list(titles.values())}}
    x = axis("acc", words("f.acc_axis"), scale={"zero": False})
    colour = axis("kind", None, "nominal", scale={"domain": kinds, "range": list(COLOURS[:2])})
    shape = axis("kind", None, "nominal", scale={"domain": kinds, "range": ["circle", "square"]})
    dash = axis("of", None, "nominal", scale={"domain": list(titles.values()), "range": [[1, 0], [4, 3]]})
    shown = tooltip(("family", words("x.family")), ("of", " "), ("kind", words("x.kind")), ("acc", words("f.acc_axis")))
    panel = {
        "width": WIDTH,
        "height": 56 * len(pairs),
        "layer": [
            layer({"type": "rule", "color": "#555", "strokeWidth": 1.6}, {"y": y, "yOffset": offset,
                  "x": x | {"field": "base"}, "x2": {"field": "instruct"}, "strokeDash": dash}, data={"values": lines}),
            layer({"type": "point", "filled": True, "size": 75, "opacity": 1}, {"y": y, "yOffset": offset, "x": x,
                  "color": colour, "shape": shape, "tooltip": shown}, data={"values": points}),
        ],
    }  # fmt: skip
    said = ", ".join(f"{one['family']} {percent(one['relative_change'], sign=True)}" for one in pairs)
    return Figure(name, (panel,), caption, words("f.kinds.alt", words=said))
