"""Figures of what experiments keep of each layer of a model."""

from __future__ import annotations

from espalier.reports.chart_rows import Row
from espalier.reports.figures.drawing import PALETTE, Drawing, Figure, Style, empty_figure, name_axis
from espalier.reports.formatting import MISSING, format_percent
from espalier.reports.messages import Texts

BLOCKS = ("attention", "mlp")


def kept_layers(texts: Texts, experiment: str | None, layers: dict[str, list[Row]]) -> Figure:
    """Draw the share of attention and MLP parameters that an experiment keeps in each layer.

    Args:
        texts: Texts in the language of the report.
        experiment: The experiment; None if there is no best one.
        layers: Rows of each experiment (`espalier.reports.chart_rows.layer_chart_rows`).
    """
    name, caption = "kept_layers", texts("f.kept", experiment=experiment or MISSING)
    if experiment is None:
        return empty_figure(name, caption, texts("f.none"))
    rows = [row for row in layers.get(experiment, []) if row["kept"] is not None]
    if not rows:
        return empty_figure(name, caption, texts("f.kept.none"))
    n_layers = max(row["layer"] for row in rows) + 1

    def draw() -> Drawing:
        drawing = Drawing(1.9, wide=n_layers > 40)
        axes = drawing.axes
        for side, block, colour in ((-0.2, "attention", PALETTE[0]), (0.2, "mlp", PALETTE[1])):
            of_block = [row for row in rows if row["block"] == block]
            places = [row["layer"] + side for row in of_block]
            bars = axes.bar(places, [row["kept"] for row in of_block], 0.4, color=colour)
            for row, bar in zip(of_block, bars, strict=True):
                drawing.tip(bar, _describe_block(texts, row))
                if row["kept"] == 0:
                    empty = Style(colour, "x")
                    drawing.point(axes, row["layer"] + side, 0.03, empty, _describe_block(texts, row))
        _percent_axis(drawing)
        axes.set_xlabel(texts("f.layer"))
        axes.set_ylabel(texts("f.kept_axis"))
        axes.set_xlim(-0.6, n_layers - 0.4)
        axes.grid(visible=False, axis="x")
        drawing.legend({texts(f"f.{block}"): Style(PALETTE[place], "s") for place, block in enumerate(BLOCKS)})
        return drawing

    description = "; ".join(_describe_kept(texts, block, rows) for block in BLOCKS)
    table = [{"experiment": experiment} | row for row in rows]
    return Figure(name, caption, texts("f.kept.alt", words=description), table, draw, wide=n_layers > 40)


def kept_map(texts: Texts, rows: list[Row], layers: dict[str, list[Row]]) -> Figure:
    """Draw what every experiment keeps of each layer: one row for each experiment, best first.

    Args:
        texts: Texts in the language of the report.
        rows: Experiments, best first (`espalier.reports.chart_rows.experiment_chart_rows`).
        layers: Rows of each experiment (`espalier.reports.chart_rows.layer_chart_rows`).
    """
    name, caption = "kept_map", texts("f.kept_map")
    names = [row["experiment"] for row in rows if row["experiment"] in layers]
    if not names:
        return empty_figure(name, caption, texts("f.kept_map.none"))
    table = [{"experiment": one} | row for one in names for row in layers[one]]
    n_layers = max(row["layer"] for row in table) + 1

    def draw() -> Drawing:
        from matplotlib.patches import Rectangle
        from matplotlib.ticker import PercentFormatter

        drawing = Drawing(0.75 + 0.145 * len(names), 1, 2, wide=True, sharey=True)
        images = []
        for block, axes in zip(BLOCKS, drawing.grid[0], strict=True):
            shares = [[float("nan")] * n_layers for _ in names]
            for row in table:
                if row["block"] == block and row["kept"] is not None:
                    shares[names.index(row["experiment"])][row["layer"]] = row["kept"]
            # An image is one small PNG in the document; as cells, a map of 32 layers would weigh hundreds of kilobytes.
            images.append(axes.imshow(shares, vmin=0, vmax=1, aspect="auto", interpolation="nearest"))
            axes.set_title(texts(f"f.{block}"))
            axes.set_xlabel(texts("f.layer"))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(visible=False)
            for place, one in enumerate(names):
                of_block = [row for row in layers[one] if row["block"] == block and row["kept"] is not None]
                cover = Rectangle((-0.5, place - 0.5), n_layers, 1, alpha=0, linewidth=0)
                axes.add_patch(cover)
                drawing.tip(cover, f"{one}\n{_describe_kept(texts, block, of_block)}")
        name_axis(drawing.axes, names)
        drawing.axes.set_ylim(len(names) - 0.5, -0.5)
        bar = drawing.figure.colorbar(images[0], ax=drawing.grid[0].tolist(), format=PercentFormatter(1), pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(texts("f.kept_axis"))
        return drawing

    return Figure(name, caption, texts("f.kept_map.alt", n=len(names), layers=n_layers), table, draw, wide=True)


def _percent_axis(drawing: Drawing) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes = drawing.axes
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _describe_block(texts: Texts, row: Row) -> str:
    place = f"{texts('f.layer')} {row['layer']}, {texts('f.' + row['block'])}"
    return f"{place}\n{texts('f.kept_axis')} {format_percent(row['kept'])}"


def _describe_kept(texts: Texts, block: str, rows: list[Row]) -> str:
    of_block = [row for row in rows if row["block"] == block and row["kept"] is not None]
    mean = sum(row["kept"] for row in of_block) / len(of_block) if of_block else None
    empty = [str(row["layer"]) for row in of_block if row["kept"] == 0]
    description = texts("f.kept.block", block=texts(f"f.{block}"), kept=format_percent(mean))
    if not empty:
        return description
    return description + texts("f.kept.empty" if len(empty) == 1 else "f.kept.empties", layers=", ".join(empty))
