"""Figures as Vega-Lite charts. The HTML page and the SVG and PDF files are drawn from the same chart.

Equal input gives equal bytes. The colours are the palette of Okabe and Ito, which colour-blind readers can distinguish.
No information is shown by colour only: a shape, a position or a label shows it too. Names that users chose are passed
as data and never become part of a Vega expression.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import vl_convert
from markupsafe import escape

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")
GREY = "#6b6b6b"
INK = "#1b1b1b"
PANEL_WIDTH = 520
Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

_FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_CONFIG: Spec = {
    "font": _FONT,
    "background": "white",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal",
        "gridColor": "#e6e6e6", "domainColor": "#888", "tickColor": "#888", "labelLimit": 260,
        "labelOverlap": "greedy", "labelSeparation": 6,
    },
    "axisQuantitative": {"tickCount": 7},
    "legend": {
        "labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal",
        "orient": "top", "labelLimit": 220, "columns": 3, "symbolSize": 70,
    },
    "title": {"fontSize": 12, "fontWeight": "normal", "color": INK, "anchor": "start"},
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes:
        name: File name without suffix.
        panels: Vega-Lite charts without style. The page arranges them to fit the screen; the files have three per row.
        caption: Caption.
        alt: Alternative text: the main values of the figure in words.
        reason: Reason why there is nothing to draw. A figure with a reason has no panels.
    """

    name: str
    panels: tuple[Spec, ...]
    caption: str
    alt: str
    reason: str | None = None


class Style(NamedTuple):
    """Colour and shape of the points of one method."""

    colour: str
    shape: str


def empty_figure(name: str, caption: str, reason: str) -> Figure:
    """Return a figure without panels that gives the reason why there is nothing to draw."""
    return Figure(name, (), caption, reason, reason)


def compile_panel(panel: Spec, alt: str) -> Spec:
    """Compile a panel to Vega for the page. Panels of at least `PANEL_WIDTH` adapt to the width of the page."""
    wide = panel["width"] >= PANEL_WIDTH
    spec = _styled(panel | ({"autosize": {"type": "fit-x", "contains": "padding"}} if wide else {}), alt)
    return dict(vl_convert.vegalite_to_vega(spec, vl_version="6.4"))


def draw_svg(figure: Figure) -> str:
    """Draw a figure as an SVG document with the alternative text as `aria-label`."""
    if not figure.panels:
        return _empty_svg(figure)
    panels = list(figure.panels)
    spec = panels[0] if len(panels) == 1 else {"concat": panels, "columns": 3}
    svg = str(vl_convert.vegalite_to_svg(_styled(spec, figure.alt), vl_version="6.4"))
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{escape(figure.alt)}" ', svg, count=1)


def svg_to_pdf(svg: str) -> bytes:
    """Convert an SVG document from `draw_svg` to PDF."""
    return bytes(vl_convert.svg_to_pdf(svg))


def channel(field: str, title: str | None, kind: str = "quantitative", **properties: Any) -> Spec:
    """Return a Vega-Lite encoding channel."""
    return {"field": field, "type": kind, "title": title} | properties


def layer(mark: Spec | str, encoding: Spec, **properties: Any) -> Spec:
    """Return a Vega-Lite layer of a panel."""
    return {"mark": mark, "encoding": encoding} | properties


def tooltip(*fields: tuple[str, str]) -> list[Spec]:
    """Return a Vega-Lite tooltip.

    Args:
        fields: Pairs of a field name and its title.
    """
    return [{"field": field, "title": title} for field, title in fields]


def method_channels(
    methods: Mapping[str, Any],
    shown: Collection[str],
    *,
    field: str = "method",
    extra: Mapping[str, Style] | None = None,
) -> tuple[Spec, Spec]:
    """Return the colour and shape channels of the methods that a figure shows.

    Colours and shapes follow the order of all methods, so a method looks the same in every figure. Controls are grey
    crosses and do not use up a colour.

    Args:
        methods: Mapping from the name of every method of the analysis to a mapping with the flag `control`.
        shown: Methods that the figure shows.
        field: Field of the data that holds the method name.
        extra: Further names of the field, such as the unpruned model, with their styles.
    """
    style_of: dict[str, Style] = {}
    place = 0
    for name, method in methods.items():
        style_of[name] = (
            Style(GREY, "cross")
            if method["control"]
            else Style(PALETTE[place % len(PALETTE)], SHAPES[place % len(SHAPES)])
        )
        place += not method["control"]
    styles = {name: style for name, style in style_of.items() if name in shown} | dict(extra or {})
    colours, shapes = [style.colour for style in styles.values()], [style.shape for style in styles.values()]
    colour = channel(field, None, "nominal", scale={"domain": list(styles), "range": colours})
    shape = channel(field, None, "nominal", scale={"domain": list(styles), "range": shapes})
    return colour, shape


def _styled(spec: Spec, alt: str) -> Spec:
    schema = "https://vega.github.io/schema/vega-lite/v6.json"
    return {"$schema": schema, "description": alt, "config": _CONFIG, "padding": 6} | spec


def _empty_svg(figure: Figure) -> str:
    text = escape(figure.reason or "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(figure.alt)}" width="480" height="60">'
        f'<text x="240" y="34" text-anchor="middle" font-family="sans-serif" font-size="12" fill="{GREY}">{text}</text>'
        "</svg>"
    )
