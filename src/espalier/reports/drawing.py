"""How figures are drawn. Equal input gives equal bytes, text stays text, colours are Okabe and Ito's."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import ContextDecorator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#6b6b6b"
WIDTH = 5.0  # inches; on a phone this is still readable
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "espalier",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: Name of its file, without suffix.
        svg: The SVG document.
        caption: What it shows.
        alt: What can be read from it, in words.
    """

    name: str
    svg: str
    caption: str
    alt: str


def styled() -> ContextDecorator:
    """Draw in the style of the reports; decorates a function that makes figures."""
    return mpl.rc_context(_STYLE)


def add_legend(axes: Axes) -> None:
    """Put a legend above the axes, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    n_columns = max(1, min(len(labels), 60 // (max(map(len, labels)) + 5)))
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.legend(handles, labels, loc="outside upper left", ncols=n_columns, fontsize=9, columnspacing=1.2)


def label_width(labels: Sequence[str]) -> float:
    """Return how many inches long labels beside the axes need more than short ones."""
    longest = max(len(line) for label in labels for line in label.split("\n"))
    return 0.085 * max(0, longest - 16)


def make_canvas(width: float, height: float) -> tuple[Canvas, Axes]:
    """Make a canvas with one pair of axes, in inches."""
    canvas = Canvas(figsize=(width, height), layout="constrained")
    return canvas, canvas.subplots()


def nothing(name: str, caption: str, reason: str) -> Figure:
    """Make a figure that says why there is nothing to draw."""
    canvas = Canvas(figsize=(5.0, 0.6))
    canvas.text(0.5, 0.5, reason, ha="center", va="center", color=GREY)
    return finish(canvas, name, caption, reason)


def finish(canvas: Canvas, name: str, caption: str, alt: str) -> Figure:
    """Finish a figure. Its ids start with its name."""
    stream = io.StringIO()
    canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    min_width_px = round(0.62 * 96 * canvas.get_figwidth())
    attributes = f'role="img" aria-label="{escape(alt)}" style="min-width: {min_width_px}px; max-width: 100%"'
    svg = prefix_ids(stream.getvalue(), name).replace("<svg ", f"<svg {attributes} ", 1)
    return Figure(name, svg, caption, alt)


def prefix_ids(svg: str, prefix: str) -> str:
    """Put a prefix before all ids and references to them, so that several figures can stand in one page."""

    def in_tag(tag: re.Match[str]) -> str:
        return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}-", tag[0])

    return re.sub(r"<[^>]*>", in_tag, svg)
