"""Figures over the depth of a model: gradient norm and prior of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from espalier.reports.chart_rows import PriorProfile, Row
from espalier.reports.figures.drawing import INK, MARKERS, Drawing, Figure, Style, empty_figure, line_handle
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content

PRIORS = ("loss_increase", "cosine_distance")


def gradient_profile(texts: Texts, analysis: Content) -> Figure:
    """Draw the gradient norm of each layer, with one line per calibration setting."""
    name, caption, profile = "gradient_profile", texts("f.gradient"), analysis["gradient_profile"]
    table: list[Row] = [
        {
            "calibration": one["calibration"], "taylor_seq_len": one["taylor_seq_len"],
            "taylor_num_samples": one["taylor_num_samples"], "layer": number, "grad_norm": norm,
        }
        for one in profile or ()
        for number, norm in enumerate(one["grad_norm"])
        if norm > 0
    ]  # fmt: skip
    if not table:
        return empty_figure(name, caption, texts("f.gradient.none"))

    def draw() -> Drawing:
        drawing = Drawing(2.3)
        lengths = _distinct(table, "taylor_seq_len")
        counts = _distinct(table, "taylor_num_samples")
        colours = _shades(len(lengths))
        for key in dict.fromkeys(tuple(row[name] for name in _SETTING) for row in table):
            line = [row for row in table if tuple(row[name] for name in _SETTING) == key]
            style = Style(colours[lengths.index(key[1])], MARKERS[counts.index(key[2]) % len(MARKERS)])
            _draw_line(texts, drawing, [(row["layer"], row["grad_norm"]) for row in line], style, _words(key))
        handles = [line_handle(f"{texts('f.seq_len')} {n}", color=c) for n, c in zip(lengths, colours, strict=True)]
        markers = MARKERS * (len(counts) // len(MARKERS) + 1)
        handles += [
            line_handle(f"{n} {texts('f.samples')}", color=INK, marker=marker, linestyle="none")
            for n, marker in zip(counts, markers, strict=False)
        ]
        drawing.legend_of(handles)
        _finish(texts, drawing, texts("f.grad_axis"), logarithmic=True)
        return drawing

    top = max(table, key=lambda row: row["grad_norm"])
    several = len({row["calibration"] for row in table}) > 1
    setting = _words(tuple(top[key] for key in _SETTING), several=several)
    alt = texts("f.gradient.alt", n=len(profile), layer=top["layer"], setting=setting)
    return Figure(name, caption, alt, table, draw)


def prior_profile(texts: Texts, priors: Sequence[PriorProfile]) -> Figure:
    """Draw the two priors of each decoder layer, with one line per calibration setting.

    Args:
        texts: Texts in the language of the report.
        priors: Priors over depth (`espalier.reports.chart_rows.prior_profiles`).
    """
    name, caption = "prior_profile", texts("f.prior")
    table: list[Row] = [
        {
            "calibration": one.calibration, "taylor_seq_len": one.seq_len, "prior_samples": one.n_sequences,
            "layer": layer, "loss_increase": increase, "cosine_distance": distance,
        }
        for one in priors
        for layer, (increase, distance) in enumerate(zip(one.loss_increase, one.cosine_distance, strict=True))
    ]  # fmt: skip
    if not table:
        return empty_figure(name, caption, texts("f.prior.none"))

    def draw() -> Drawing:
        drawing = Drawing(3.4, 2, 1, sharex=True)
        lengths = _distinct(table, "taylor_seq_len")
        colours = _shades(len(lengths))
        for place, prior in enumerate(PRIORS):
            for one in priors:
                style = Style(colours[lengths.index(one.seq_len)], MARKERS[lengths.index(one.seq_len) % len(MARKERS)])
                points = list(enumerate(getattr(one, prior)))
                words = _words((one.calibration, one.seq_len, one.n_sequences))
                _draw_line(texts, drawing, points, style, words, axes=drawing.grid[place, 0])
            _finish(texts, drawing, texts(f"f.{prior}"), axes=drawing.grid[place, 0], last=place == 1)
        markers = [MARKERS[place % len(MARKERS)] for place in range(len(lengths))]
        drawing.legend_of(
            [
                line_handle(f"{texts('f.seq_len')} {length}", color=colour, marker=marker)
                for length, colour, marker in zip(lengths, colours, markers, strict=True)
            ]
        )
        return drawing

    top = max(table, key=lambda row: row["loss_increase"])
    return Figure(name, caption, texts("f.prior.alt", layer=top["layer"]), table, draw)


_SETTING = ("calibration", "taylor_seq_len", "taylor_num_samples")


def _draw_line(
    texts: Texts, drawing: Drawing, points: Sequence[tuple[int, float]], style: Style, words: str, axes: Any = None
) -> None:
    axes = axes or drawing.axes
    axes.plot([x for x, _ in points], [y for _, y in points], color=style.colour, linewidth=0.9)
    for x, y in points:
        tip = f"{words}\n{texts('f.layer')} {x}: {y:.3g}"
        drawing.point(axes, x, y, style, tip, markersize=2.8)


def _finish(
    texts: Texts, drawing: Drawing, title: str, *, axes: Any = None, last: bool = True, logarithmic: bool = False
) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axes = axes or drawing.axes
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_ylabel(title)
    if last:
        axes.set_xlabel(texts("f.layer"))
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.10g}" if 1e-3 <= value < 1e4 else f"{value:.0e}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _shades(n: int) -> list[str]:
    """Return dark to light colours for ordered values; the lightest yellows are left out."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    scale = mpl.colormaps["viridis"]
    return [to_hex(scale(0.75 * place / max(1, n - 1))) for place in range(n)]


def _distinct(table: list[Row], column: str) -> list[int]:
    return sorted({row[column] for row in table})


def _words(setting: tuple[Any, ...], *, several: bool = False) -> str:
    name = f"{setting[1]} x {setting[2]}"
    return f"{setting[0]} {name}" if several else name
