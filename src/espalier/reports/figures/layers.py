"""Figures over the layers of a model: share of parameters kept per layer, and gradient norm per layer."""

from __future__ import annotations

from typing import Any

from espalier.reports.chart_rows import Row
from espalier.reports.figures.vega import PALETTE, PANEL_WIDTH, Figure, Spec, channel, empty_figure, layer, tooltip
from espalier.reports.formatting import MISSING, format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content

ROWS = "rows"
"""Name of the Vega data set that `page.js` replaces when the reader chooses another experiment."""


def best_kept_layers(texts: Texts, content: Content, layers: dict[str, list[Row]]) -> Figure:
    """Draw the share of attention and MLP parameters that the best experiment keeps in each layer."""
    best = content["best"]
    if best is None:
        return empty_figure("kept_layers", texts("f.kept", experiment=MISSING), texts("f.none"))
    return kept_layers(texts, best["experiment"], layers)


def kept_layers(texts: Texts, experiment: str, layers: dict[str, list[Row]]) -> Figure:
    """Draw the share of attention and MLP parameters that an experiment keeps in each layer."""
    name, caption = "kept_layers", texts("f.kept", experiment=experiment)
    rows = layers.get(experiment)
    if not rows:
        return empty_figure(name, caption, texts("f.kept.none"))
    description = "; ".join(_describe_kept(texts, block, rows) for block in ("attention", "mlp"))
    return Figure(name, (kept_panel(texts, rows),), caption, texts("f.kept.alt", words=description))


def kept_panel(texts: Texts, rows: list[Row]) -> Spec:
    """Return the Vega-Lite chart of the kept shares by layer.

    Args:
        texts: Texts in the language of the report.
        rows: Rows of one experiment (`espalier.reports.chart_rows.layer_chart_rows`).
    """
    names = {"attention": texts("f.attention"), "mlp": texts("f.mlp")}
    named = [row | {"name": names[row["block"]]} for row in rows]
    colour = channel(
        "block", None, "nominal", scale={"domain": ["attention", "mlp"], "range": list(PALETTE[:2])},
        legend={"labelExpr": f"datum.value == 'mlp' ? '{names['mlp']}' : '{names['attention']}'"},
    )  # fmt: skip
    n_layers = len({row["layer"] for row in rows})
    x = channel("layer", texts("f.layer"), "ordinal", axis={"labelAngle": 0, "labelOverlap": True})
    y = channel("kept", texts("f.kept_axis"), scale={"domain": [0, 1]}, axis={"format": ".0%", "tickCount": 5})
    offset = {"field": "block", "type": "nominal", "scale": {"domain": ["attention", "mlp"]}}
    shown = [
        *tooltip(("layer", texts("f.layer")), ("block", texts("part")), ("width", texts("value"))),
        {"field": "kept", "title": texts("f.kept_axis"), "type": "quantitative", "format": ".1%"},
    ]
    cross = {"type": "point", "shape": "M-1,-1L1,1M-1,1L1,-1", "size": 30, "strokeWidth": 2, "yOffset": -6}
    return {
        "width": max(PANEL_WIDTH, 14 * n_layers),
        "height": 190,
        "data": {"name": ROWS, "values": named},
        "encoding": {"x": x, "xOffset": offset, "y": y, "color": colour},
        "layer": [
            layer({"type": "bar"}, {"tooltip": shown}),
            layer(cross, {}, transform=[{"filter": "datum.kept === 0"}]),
        ],
    }


def gradient_profile_figure(texts: Texts, analysis: Content) -> Figure:
    """Draw the gradient norm of each layer, with one line per calibration setting."""
    name, caption, profile = "gradient_profile", texts("f.gradient"), analysis["gradient_profile"]
    if not profile:
        return empty_figure(name, caption, texts("f.gradient.none"))
    several = len({one["calibration"] for one in profile}) > 1
    rows: list[dict[str, Any]] = [
        {
            "layer": number, "norm": norm, "seq_len": one["taylor_seq_len"], "samples": one["taylor_num_samples"],
            "setting": _setting(one, several=several),
        }
        for one in profile
        for number, norm in enumerate(one["grad_norm"])
        if norm > 0
    ]  # fmt: skip
    lengths = sorted({row["seq_len"] for row in rows})
    x = channel("layer", texts("f.layer"), axis={"tickMinStep": 1, "format": "d"}, scale={"nice": False})
    y = channel("norm", texts("f.grad_axis"), scale={"type": "log"}, axis={"format": "~e", "tickCount": 4})
    colour = channel("seq_len", texts("f.seq_len"), "ordinal", scale={"domain": lengths, "scheme": "viridis"})
    dash = channel("samples", texts("f.samples"), "ordinal")
    shown = tooltip(("setting", texts("setting")), ("layer", texts("f.layer")))
    shown.append({"field": "norm", "title": texts("f.grad_axis"), "type": "quantitative", "format": ".3e"})
    panel = {
        "width": PANEL_WIDTH,
        "height": 260,
        "data": {"values": rows},
        "encoding": {"x": x, "y": y, "color": colour, "detail": {"field": "setting"}},
        "layer": [
            layer({"type": "line", "strokeWidth": 1.8}, {"strokeDash": dash}),
            layer({"type": "point", "filled": True, "size": 26}, {"tooltip": shown}),
        ],
    }
    top = max(rows, key=lambda row: row["norm"])
    alt = texts("f.gradient.alt", n=len(profile), layer=top["layer"], setting=top["setting"])
    return Figure(name, (panel,), caption, alt)


def _setting(one: Content, *, several: bool) -> str:
    name = f"{one['taylor_seq_len']} x {one['taylor_num_samples']}"
    return f"{one['calibration']} {name}" if several else name


def _describe_kept(texts: Texts, block: str, rows: list[Row]) -> str:
    of_block = [row for row in rows if row["block"] == block and row["kept"] is not None]
    mean = sum(row["kept"] for row in of_block) / len(of_block) if of_block else None
    empty = [str(row["layer"]) for row in of_block if row["kept"] == 0]
    description = texts("f.kept.block", block=texts(f"f.{block}"), kept=format_percent(mean))
    if not empty:
        return description
    return description + texts("f.kept.empty" if len(empty) == 1 else "f.kept.empties", layers=", ".join(empty))
