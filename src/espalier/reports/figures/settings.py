"""Heat maps of the accuracy of one model by sequence length and number of samples."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from espalier.reports.chart_rows import Row
from espalier.reports.figures.drawing import Drawing, Figure, empty_figure, plain
from espalier.reports.formatting import format_fixed, format_interval
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL = 0.2
"""Height of a cell, in inches."""


def accuracy_by_setting(texts: Texts, content: Content, rows: list[Row]) -> Figure:
    """Draw mean accuracy by sequence length and number of samples, with one heat map per method."""
    name, caption = "accuracy_by_setting", texts("f.setting")
    with_setting = [row for row in rows if row["seq_len"] and row["samples"] and not row["control"]]
    if not with_setting:
        return empty_figure(name, caption, texts("f.setting.none"))
    methods = [method for method in content["methods"] if any(row["method"] == method for row in with_setting)]
    cells = {method: _cells([row for row in with_setting if row["method"] == method]) for method in methods}
    lengths, counts = ([*sorted({row[key] for row in with_setting})] for key in ("seq_len", "samples"))
    wide = len(counts) * min(3, len(methods)) > 8
    across = min(len(methods), 3)
    down = ceil(len(methods) / across)

    def draw() -> Drawing:
        low, high = min(row["acc"] for row in with_setting), max(row["acc"] for row in with_setting)
        height = 0.3 + down * (0.35 + _CELL * max(2, len(lengths)))
        drawing = Drawing(height, down, across, wide=wide, sharex=True, sharey=True)
        for place, axes in enumerate(drawing.grid.flat):
            if place < len(methods):
                _heat_map(texts, drawing, axes, methods[place], cells[methods[place]], lengths, counts, (low, high))
            else:
                axes.set_visible(False)
        drawing.figure.supxlabel(texts("f.samples"), fontsize="medium")
        drawing.figure.supylabel(texts("seq_len"), fontsize="medium")
        return drawing

    highest = {method: max(method_cells, key=lambda cell: cell["acc_mean"]) for method, method_cells in cells.items()}
    description = "; ".join(
        texts("f.setting.cell", method=method, seq_len=cell["taylor_seq_len"], samples=cell["taylor_num_samples"])
        for method, cell in highest.items()
    )
    alt = texts("f.setting.alt", cells=description)
    table = [cell for method in methods for cell in cells[method]]
    return Figure(name, caption, alt, table, draw, wide=wide)


def _cells(rows: list[Row]) -> list[Row]:
    """Average the experiments of each setting over calibration seeds. Single experiments keep their interval."""
    settings: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        settings.setdefault((row["seq_len"], row["samples"]), []).append(row)
    cells = []
    for (length, count), of_setting in sorted(settings.items()):
        one = of_setting[0] if len(of_setting) == 1 else {"low": None, "high": None}
        cells.append(
            {
                "method": of_setting[0]["method"],
                "taylor_seq_len": length,
                "taylor_num_samples": count,
                "n_experiments": len(of_setting),
                "acc_mean": sum(row["acc"] for row in of_setting) / len(of_setting),
                "acc_mean_low": one["low"],
                "acc_mean_high": one["high"],
            }
        )
    return cells


def _heat_map(
    texts: Texts, drawing: Drawing, axes: Axes, method: str, cells: list[Row], lengths: list[int], counts: list[int],
    scale: tuple[float, float],
) -> None:  # fmt: skip
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    low, high = scale
    colours = mpl.colormaps[mpl.rcParams["image.cmap"]]
    for cell in cells:
        x, y = counts.index(cell["taylor_num_samples"]), lengths.index(cell["taylor_seq_len"])
        share = (cell["acc_mean"] - low) / (high - low) if high > low else 0.5
        patch = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colours(share), edgecolor="white", linewidth=0.8)
        axes.add_patch(patch)
        ends = None if cell["acc_mean_low"] is None else (cell["acc_mean_low"], cell["acc_mean_high"])
        setting = texts("f.setting.cell", method=method, seq_len=lengths[y], samples=counts[x])
        shown = f"{format_fixed(cell['acc_mean'])} ({format_interval(texts, ends)})" if ends else None
        drawing.tip(patch, f"{setting}\n{shown or format_fixed(cell['acc_mean'])}")
        ink = "white" if _luminance(colours(share)) < 0.18 else "black"  # both are equally readable at 0.18
        axes.text(x, y, format_fixed(cell["acc_mean"], 3), ha="center", va="center", color=ink, size=7)
    axes.set_title(plain(method))
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set_yticks(range(len(lengths)), [str(length) for length in lengths])
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_ylim(-0.5, len(lengths) - 0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _luminance(colour: tuple[float, float, float, float]) -> float:
    """Return the relative luminance of a colour, 0 to 1 (WCAG 2.2)."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
