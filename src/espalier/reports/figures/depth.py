"""Figures over the layers of a model: share of parameters kept per layer, and gradient norm per layer."""

from __future__ import annotations

from typing import Any

from espalier.reports.figures.vega import COLOURS, WIDTH, Figure, Spec, axis, layer, nothing, tooltip
from espalier.reports.messages import Words
from espalier.reports.rows import Row
from espalier.reports.sections.base import MISSING, Content, percent

ROWS = "rows"
"""Name of the Vega data set that `page.js` replaces when the reader chooses another experiment."""


def kept_layers(words: Words, content: Content, layers: dict[str, list[Row]]) -> Figure:
    """Draw the share of attention and MLP parameters that the best experiment keeps in each layer."""
    best = content["best"]
    if best is None:
        return nothing("kept_layers", words("f.kept", experiment=MISSING), words("f.none"))
    return kept_by(words, best["experiment"], layers)


def kept_by(words: Words, experiment: str, layers: dict[str, list[Row]]) -> Figure:
    """Draw the share of attention and MLP parameters that an experiment keeps in each layer."""
    name, caption = "kept_layers", words("f.kept", experiment=experiment)
    rows = layers.get(experiment)
    if not rows:
        return nothing(name, caption, words("f.kept.none"))
    said = "; ".join(_kept_words(words, block, rows) for block in ("attention", "mlp"))
    return Figure(name, (kept_panel(words, rows),), caption, words("f.kept.alt", words=said))


def kept_panel(words: Words, rows: list[Row]) -> Spec:
    """Return the Vega-Lite chart of the kept shares by layer.

    Args:
        words: Language.
        rows: Rows of one experiment (`espalier.reports.rows.layer_rows`).
    """
    names = {"attention": words("f.attention"), "mlp": words("f.mlp")}
    named = [row | {"name": names[row["block"]]} for row in rows]
    colour = axis(
        "block", None, "nominal", scale={"domain": ["attention", "mlp"], "range": list(COLOURS[:2])},
        legend={"labelExpr": f"datum.value == 'mlp' ? '{names['mlp']}' : '{names['attention']}'"},
    )  # fmt: skip
    n_layers = len({row["layer"] for row in rows})
    x = axis("layer", words("f.layer"), "ordinal", axis={"labelAngle": 0, "labelOverlap": True})
    y = axis("kept", words("f.kept_axis"), scale={"domain": [0, 1]}, axis={"format": ".0%", "tickCount": 5})
    offset = {"field": "block", "type": "nominal", "scale": {"domain": ["attention", "mlp"]}}
    shown = [
        *tooltip(("layer", words("f.layer")), ("block", words("part")), ("width", words("value"))),
        {"field": "kept", "title": words("f.kept_axis"), "type": "quantitative", "format": ".1%"},
    ]
    cross = {"type": "point", "shape": "M-1,-1L1,1M-1,1L1,-1", "size": 30, "strokeWidth": 2, "yOffset": -6}
    return {
        "width": max(WIDTH, 14 * n_layers),
        "height": 190,
        "data": {"name": ROWS, "values": named},
        "encoding": {"x": x, "xOffset": offset, "y": y, "color": colour},
        "layer": [
            layer({"type": "bar"}, {"tooltip": shown}),
            layer(cross, {}, transform=[{"filter": "datum.kept === 0"}]),
        ],
    }


def gradient_profile(words: Words, analysis: Content) -> Figure:
    """Draw the gradient norm of each layer, with one line per calibration setting."""
    name, caption, profile = "gradient_profile", words("f.gradient"), analysis["gradient_profile"]
    if not profile:
        return nothing(name, caption, words("f.gradient.none"))
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
    x = axis("layer", words("f.layer"), axis={"tickMinStep": 1, "format": "d"}, scale={"nice": False})
    y = axis("norm", words("f.grad_axis"), scale={"type": "log"}, axis={"format": "~e", "tickCount": 4})
    colour = axis("seq_len", words("f.seq_len"), "ordinal", scale={"domain": lengths, "scheme": "viridis"})
    dash = axis("samples", words("f.samples"), "ordinal")
    shown = tooltip(("setting", words("setting")), ("layer", words("f.layer")))
    shown.append({"field": "norm", "title": words("f.grad_axis"), "type": "quantitative", "format": ".3e"})
    panel = {
        "width": WIDTH,
        "height": 260,
        "data": {"values": rows},
        "encoding": {"x": x, "y": y, "color": colour, "detail": {"field": "setting"}},
        "layer": [
            layer({"type": "line", "strokeWidth": 1.8}, {"strokeDash": dash}),
            layer({"type": "point", "filled": True, "size": 26}, {"tooltip": shown}),
        ],
    }
    top = max(rows, key=lambda row: row["norm"])
    alt = words("f.gradient.alt", n=len(profile), layer=top["layer"], setting=top["setting"])
    return Figure(name, (panel,), caption, alt)


def _setting(one: Content, *, several: bool) -> str:
    name = f"{one['taylor_seq_len']} x {one['taylor_num_samples']}"
    return f"{one['calibration']} {name}" if several else name


def _kept_words(words: Words, block: str, rows: list[Row]) -> str:
    mine = [row for row in rows if row["block"] == block and row["kept"] is not None]
    mean = sum(row["kept"] for row in mine) / len(mine) if mine else None
    empty = [str(row["layer"]) for row in mine if row["kept"] == 0]
    said = words("f.kept.block", block=words(f"f.{block}"), kept=percent(mean))
    if not empty:
        return said
    return said + words("f.kept.empty" if len(empty) == 1 else "f.kept.empties", layers=", ".join(empty))
