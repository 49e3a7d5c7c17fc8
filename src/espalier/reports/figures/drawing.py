"""What all figures share: their record, sizes, colours, markers, and tooltips.

Colours are the palette of Okabe and Ito. No information is shown by colour only: a shape, a position or a label shows
it too. matplotlib is imported only to draw, so a page that shows finished figures does not load it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import matplotlib.figure
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "P", "v", "p")
GREY = "#6b6b6b"
INK = "#1b1b1b"
INTERVAL = "#777777"
TWO_COLUMNS = 6.9 / 3.3
"""Width of two columns of text, in widths of one column."""
_CHARACTERS_PER_INCH = 17
"""About as many characters of a legend fit into an inch."""


LEGEND_ROW = 0.14
"""Height of a row of a legend, in inches."""


class Drawing:
    """A matplotlib figure with its axes, and the tooltips of its artists.

    Args:
        height: Height in inches.
        rows: Rows of axes.
        columns: Columns of axes.
        wide: Whether the figure is two columns wide.
        grid: Further arguments of `matplotlib.figure.Figure.subplots`.
    """

    def __init__(self, height: float, rows: int = 1, columns: int = 1, *, wide: bool = False, **grid: Any) -> None:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas

        width = mpl.rcParams["figure.figsize"][0] * (TWO_COLUMNS if wide else 1)
        self.figure: matplotlib.figure.Figure = Canvas(figsize=(width, height), layout="constrained")
        self.grid = self.figure.subplots(rows, columns, squeeze=False, **grid)
        self.tips: dict[str, str] = {}

    @property
    def axes(self) -> Axes:
        """The first axes."""
        return self.grid[0, 0]  # type: ignore[no-any-return]

    def tip(self, artist: Artist, text: str) -> None:
        """Give an artist a tooltip."""
        name = f"tip{len(self.tips)}"
        artist.set_gid(name)
        self.tips[name] = text

    def point(self, axes: Axes, x: float, y: float, style: Style, tip: str = "", **properties: Any) -> None:
        """Draw one point with a tooltip."""
        shown: dict[str, Any] = {"color": style.colour, "markeredgewidth": 1.0, "linestyle": "none"} | properties
        (artist,) = axes.plot([x], [y], marker=style.marker, **shown)
        if tip:
            self.tip(artist, tip)

    def legend(self, styles: Mapping[str, Style]) -> None:
        """Draw a legend of points above the axes."""
        self.legend_of(
            [
                line_handle(name, marker=style.marker, color=style.colour, linestyle="none", **style.properties)
                for name, style in styles.items()
            ]
        )

    def legend_of(self, handles: Sequence[Artist]) -> None:
        """Draw a legend of handles above the axes, in as few rows as their names allow.

        The figure gets higher by the rows after the first, so that they take no room from the axes.
        """
        longest = max((len(str(handle.get_label())) for handle in handles), default=1)
        fitting = int(self.figure.get_figwidth() * _CHARACTERS_PER_INCH / (longest + 5))
        total = sum(len(str(handle.get_label())) + 5 for handle in handles)
        if total > self.figure.get_figwidth() * _CHARACTERS_PER_INCH:
            columns = max(1, min(fitting, ceil(len(handles) / 2)))
        else:
            columns = len(handles)
        if handles:
            more_rows = ceil(len(handles) / columns) - 1
            self.figure.set_figheight(self.figure.get_figheight() + LEGEND_ROW * more_rows)
            self.figure.legend(handles=handles, loc="outside upper left", ncols=columns)


class Style(NamedTuple):
    """How the points of one name look: colour, marker, and further properties of matplotlib's lines."""

    colour: str
    marker: str
    properties: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes:
        name: File name without suffix.
        caption: Caption, in the language of the report.
        alt: Alternative text: the main values of the figure in words.
        rows: The table behind the figure, one mapping of column to value for each row.
        draw: Draws the figure, under the style that is in force; None if there is nothing to draw.
        reason: Reason why there is nothing to draw.
        wide: Whether the figure is two columns wide.
    """

    name: str
    caption: str
    alt: str
    rows: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    draw: Callable[[], Drawing] | None = field(default=None, repr=False, compare=False)
    reason: str | None = None
    wide: bool = False

    def renamed(self, name: str) -> Figure:
        """Return the same figure under another name."""
        return replace(self, name=name)


def empty_figure(name: str, caption: str, reason: str) -> Figure:
    """Return a figure that only gives the reason why there is nothing to draw."""
    return Figure(name, caption, reason, ({"reason": reason},), reason=reason)


def line_handle(name: str, **properties: Any) -> Artist:
    """Return a legend handle of a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=plain(name), **properties)


def method_styles(methods: Mapping[str, Any], shown: Collection[str]) -> dict[str, Style]:
    """Return the styles of the methods that a figure shows.

    Colours and markers follow the order of all methods, so a method looks the same in every figure. Controls are grey
    crosses and do not use up a colour.

    Args:
        methods: Mapping from the name of every method of the analysis to a mapping with the flag `control`.
        shown: Methods that the figure shows.
    """
    styles: dict[str, Style] = {}
    place = 0
    for name, method in methods.items():
        if method["control"]:
            styles[name] = Style(GREY, "x")
        else:
            styles[name] = Style(PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)])
            place += 1
    return {name: style for name, style in styles.items() if name in shown}


def name_axis(axes: Axes, names: Sequence[str]) -> None:
    """Label the y axis with names, the first on top."""
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def shorten(name: str) -> str:
    """Shorten a name of more than 34 characters in the middle, and escape `$`."""
    return plain(name if len(name) <= 34 else f"{name[:17]}…{name[-16:]}")


def plain(text: str) -> str:
    """Escape `$`, which starts a formula in matplotlib."""
    return text.replace("$", r"\$")


def limits(values: Collection[float]) -> tuple[float, float]:
    """Return axis limits for fractions: a margin around the values, but not below 0 or above 1."""
    margin = 0.03 * (max(values) - min(values)) or 0.01
    return max(0, min(values) - margin), min(1, max(values) + margin)


def limit_x(axes: Axes, values: Collection[float]) -> None:
    """Fit the horizontal axis to fractions, with at most seven ticks, whose labels then do not touch."""
    axes.set_xlim(limits(values))
    axes.locator_params(axis="x", nbins=6)


def percent_axis(axis: Axis, ticks: Iterable[float] = ()) -> None:
    """Label an axis of fractions in percent, with as few digits as the ticks need.

    Args:
        axis: The axis.
        ticks: Places of the ticks; if there are none or many, matplotlib chooses.
    """
    from matplotlib.ticker import FixedLocator, MaxNLocator

    places = sorted(set(ticks))
    axis.set_major_locator(FixedLocator(places) if 0 < len(places) <= 8 else MaxNLocator(6))
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
