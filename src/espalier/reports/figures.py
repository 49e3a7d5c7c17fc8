"""Figures of the reports, as SVG: of one model at one pruning ratio, and of all models at one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from espalier.analysis.best import rows_of, valid_rows
from espalier.reports.drawing import (
    COLOURS,
    GREY,
    MARKERS,
    WIDTH,
    Figure,
    add_legend,
    finish,
    label_width,
    make_canvas,
    nothing,
    styled,
)
from espalier.reports.sections import Content, fixed, percent


@styled()
def model_figures(experiments: pd.DataFrame, layers: pd.DataFrame, model: str, content: Content) -> list[Figure]:
    """Draw the figures of one model at one pruning ratio."""
    return [
        _accuracy_by_method(experiments, model, content),
        _accuracy_by_setting(experiments, model, content),
        _accuracy_perplexity(experiments, model, content),
        _kept_layers(layers, model, content),
    ]


@styled()
def cross_model_figures(content: Content) -> list[Figure]:
    """Draw the figures that compare all models at one pruning ratio."""
    return [_best_vs_baseline(content), _base_vs_instruct(content)]


def _accuracy_by_method(experiments: pd.DataFrame, model: str, content: Content) -> Figure:
    """Draw each experiment's accuracy, a strip per method, with the means and the unpruned model."""
    name, caption = "accuracy_by_method", "Mean accuracy of each experiment; the bar is the mean of the method."
    valid = _valid(experiments, model, content)
    methods = [method for method, one in content["methods"].items() if one["n"]]
    if not methods:
        return nothing(name, caption, "There is no valid experiment.")
    canvas, axes = make_canvas(WIDTH + label_width(methods), 1.0 + 0.55 * len(methods))
    for place, method in enumerate(methods):
        values = np.sort(valid.loc[valid["method"] == method, "acc_mean"].to_numpy(dtype=np.float64))
        colour, marker = _look(content, method)
        offsets = 0.12 * (np.arange(len(values)) % 3 - 1) if len(values) > 2 else np.zeros(len(values))
        axes.scatter(values, place + offsets, s=26, color=colour, marker=marker, alpha=0.75, linewidths=0)
        if len(values) > 1:
            axes.plot([values.mean()] * 2, [place - 0.3, place + 0.3], color="black", linewidth=2)
    controls = [content["methods"][method]["control"] for method in methods]
    labels = [f"{method} (control)" if control else method for method, control in zip(methods, controls, strict=True)]
    axes.set_yticks(range(len(methods)), labels)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlabel("mean accuracy")
    _mark_baseline(axes, content)
    means = ", ".join(
        f"{method} {fixed(content['methods'][method]['mean'])} (n = {content['methods'][method]['n']})"
        for method in methods
    )
    return finish(canvas, name, caption, f"Accuracy by method. Means: {means}.{_baseline_words(content)}")


def _accuracy_by_setting(experiments: pd.DataFrame, model: str, content: Content) -> Figure:
    """Draw mean accuracy over sequence length and number of samples, a heat map per method."""
    name, caption = (
        "accuracy_by_setting",
        "Mean accuracy by calibration setting, per method, on one scale; darker is lower.",
    )
    valid = valid_rows(rows_of(experiments, model).at(content["pruning_ratio"]))
    valid = valid.dropna(subset=["taylor_seq_len", "taylor_num_samples"])
    if valid.empty:
        return nothing(name, caption, "No valid experiment has a sequence length and a number of samples.")
    methods = [method for method in content["methods"] if (valid["method"] == method).any()]
    grids = {method: _grid(valid, method) for method in methods}
    lengths, counts = next(iter(grids.values())).shape
    n_columns = min(3, len(methods))
    n_rows = -(-len(methods) // n_columns)
    size = (0.6 + n_columns * max(1.4, 0.48 * counts), n_rows * (0.7 + 0.36 * lengths))
    canvas = Canvas(figsize=size, layout="constrained")
    panels = list(canvas.subplots(n_rows, n_columns, squeeze=False, sharey=True).flat)
    low, high = float(valid["acc_mean"].min()), float(valid["acc_mean"].max())
    for place, (axes, method) in enumerate(zip(panels, methods, strict=False)):
        _heat_map(axes, grids[method], low, high)
        axes.set_title(method)
        axes.set_ylabel("sequence length" if place % n_columns == 0 else "")
    for axes in panels[len(methods) :]:
        axes.set_axis_off()
    words = "; ".join(f"{method}: {_highest_cell(grid)}" for method, grid in grids.items())
    return finish(canvas, name, caption, f"Heat maps of accuracy. Highest cell of each method: {words}.")


def _accuracy_perplexity(experiments: pd.DataFrame, model: str, content: Content) -> Figure:
    """Draw accuracy against perplexity of the first text."""
    name, text = "accuracy_perplexity", content["ppl_accuracy"]["text"]
    caption = f"Mean accuracy against perplexity{f' of {text}' if text else ''}, one point per experiment."
    valid = _valid(experiments, model, content)
    if text:
        valid = valid[np.isfinite(valid[f"ppl_{text}"].to_numpy(dtype=np.float64))]
    if not text or valid.empty:
        return nothing(name, caption, "No valid experiment has a perplexity.")
    canvas, axes = make_canvas(WIDTH, 3.6)
    for method in (method for method in content["methods"] if (valid["method"] == method).any()):
        rows = valid[valid["method"] == method]
        colour, marker = _look(content, method)
        axes.scatter(rows[f"ppl_{text}"], rows["acc_mean"], s=30, color=colour, marker=marker, alpha=0.8, label=method)
    baseline = content["baseline"]
    if baseline and baseline["ppl"]:
        axes.scatter([baseline["ppl"]], [baseline["acc_mean"]], s=90, marker="*", color="black", label="unpruned")
    low, high = axes.get_xlim()
    spread = valid[f"ppl_{text}"].max() / valid[f"ppl_{text}"].min()
    if spread > 20:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if spread < 200 else (1,)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(max(low, 0), high)
    axes.set_xlabel(f"perplexity of {text}")
    axes.set_ylabel("mean accuracy")
    add_legend(axes)
    one = content["ppl_accuracy"]
    r = f"r = {fixed(one['r'], 3)}" if one["r"] is not None else f"undefined ({one['reason']})"
    return finish(canvas, name, caption, f"Accuracy against perplexity of {len(valid)} experiments. Correlation: {r}.")


def _kept_layers(layers: pd.DataFrame, model: str, content: Content) -> Figure:
    """Draw what share of attention and MLP the best plan keeps in each layer."""
    name, best = "kept_layers", content["best"]
    if best is None:
        return nothing(name, "Share of each layer that the best plan keeps.", "There is no valid experiment.")
    caption = f"Share of each layer's attention and MLP parameters that {best['experiment']} keeps."
    rows = layers[(layers["model"] == model) & (layers["experiment"] == best["experiment"])].sort_values("layer")
    if rows.empty:
        return nothing(name, caption, "The plan of the best experiment is not in the layers table.")
    canvas, axes = make_canvas(WIDTH, 3.0)
    words = []
    for block, colour, shift in (("attention", COLOURS[0], -0.2), ("mlp", COLOURS[1], 0.2)):
        label = "MLP" if block == "mlp" else block
        kept = (rows[f"{block}_after"] / rows[f"{block}_before"]).to_numpy(dtype=np.float64)
        numbers = rows["layer"].to_numpy()
        axes.bar(numbers + shift, 100 * kept, width=0.4, color=colour, label=label)
        empty = [str(number) for number, share in zip(numbers, kept, strict=True) if share == 0]
        axes.scatter([int(number) + shift for number in empty], [2] * len(empty), marker="x", color=colour, s=22)
        words.append(f"{label} {percent(float(np.nanmean(kept)))} kept on average" + _empty_words(empty))
    axes.set_ylim(0, 105)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("decoder layer (a cross marks an empty block)")
    axes.set_ylabel("kept (%)")
    add_legend(axes)
    return finish(canvas, name, caption, f"Kept share per layer. {'; '.join(words)}.")


def _best_vs_baseline(content: Content) -> Figure:
    """Draw the best experiment of each model against its unpruned model."""
    name, caption = "best_vs_baseline", "Best pruned accuracy of each model (filled) against the unpruned model (open)."
    rows = sorted(content["best_configs"], key=lambda row: (-row["acc_mean"], row["model"]))
    if not rows:
        return nothing(name, caption, "No model has a valid experiment.")
    labels = [f"{row['model']}\n{row['method']}" for row in rows]
    canvas, axes = make_canvas(WIDTH + label_width(labels), 0.9 + 0.5 * len(rows))
    for place, row in enumerate(rows):
        unpruned = row["baseline_acc_mean"]
        if unpruned is not None:
            axes.plot([row["acc_mean"], unpruned], [place, place], color=GREY, linewidth=1.5, zorder=1)
            axes.scatter([unpruned], [place], s=48, facecolors="white", edgecolors="black", zorder=2)
        axes.scatter([row["acc_mean"]], [place], s=48, color=COLOURS[0], zorder=3)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("mean accuracy")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    words = ", ".join(f"{row['model']} {fixed(row['acc_mean'])} ({percent(row['acc_kept'])} kept)" for row in rows)
    return finish(canvas, name, caption, f"Best experiment of each model against its unpruned model: {words}.")


def _base_vs_instruct(content: Content) -> Figure:
    """Draw the best accuracies of base and instruct models, a pair of bars per family."""
    name, caption = "base_vs_instruct", "Accuracy of the best pruned base and instruct model of each family."
    pairs = [one for one in content["base_vs_instruct"] if one["reason"] is None]
    if not pairs:
        return nothing(name, caption, "No family has a base and an instruct model with comparable results.")
    canvas, axes = make_canvas(max(3.6, 1.4 * len(pairs) + 1.2), 3.2)
    places = np.arange(len(pairs))
    for kind, colour, shift in (("base", COLOURS[0], -0.19), ("instruct", COLOURS[1], 0.19)):
        bars = axes.bar(places + shift, [one[f"{kind}_acc"] for one in pairs], width=0.36, color=colour, label=kind)
        axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=8)
    axes.set_xticks(places, [one["family"] for one in pairs])
    axes.set_ylabel("mean accuracy")
    add_legend(axes)
    words = ", ".join(f"{one['family']} {percent(one['relative_change'], sign=True)}" for one in pairs)
    return finish(canvas, name, caption, f"Change from base to instruct: {words}.")


def _valid(experiments: pd.DataFrame, model: str, content: Content) -> pd.DataFrame:
    return valid_rows(rows_of(experiments, model).at(content["pruning_ratio"]), controls=True)


def _grid(valid: pd.DataFrame, method: str) -> pd.DataFrame:
    lengths, counts = (sorted(valid[axis].astype(int).unique()) for axis in ("taylor_seq_len", "taylor_num_samples"))
    rows = valid[valid["method"] == method]
    grid = rows.pivot_table(values="acc_mean", index="taylor_seq_len", columns="taylor_num_samples", aggfunc="mean")
    return grid.reindex(index=lengths, columns=counts)


def _highest_cell(grid: pd.DataFrame) -> str:
    row, column = map(int, np.unravel_index(np.nanargmax(grid.to_numpy(dtype=np.float64)), grid.shape))
    return f"sequence length {grid.index[row]}, {grid.columns[column]} samples"


def _heat_map(axes: Axes, grid: pd.DataFrame, low: float, high: float) -> None:
    values = grid.to_numpy(dtype=np.float64)
    high = max(high, low + 1e-9)
    axes.pcolormesh(np.ma.masked_invalid(values), cmap="cividis", vmin=low, vmax=high, edgecolors="white", linewidth=1)
    for (row, column), value in np.ndenumerate(values):
        dark = np.isfinite(value) and (value - low) / (high - low) < 0.45
        label = f"{value:.3f}" if np.isfinite(value) else "\N{EN DASH}"
        colour = "white" if dark else "black"
        axes.text(column + 0.5, row + 0.5, label, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(np.arange(grid.shape[1]) + 0.5, [str(value) for value in grid.columns])
    axes.set_yticks(np.arange(grid.shape[0]) + 0.5, [str(value) for value in grid.index])
    axes.tick_params(length=0)
    axes.set_xlabel("samples")


def _look(content: Content, method: str) -> tuple[str, str]:
    methods: Mapping[str, Any] = content["methods"]
    if methods[method]["control"]:
        return GREY, "X"
    place = [name for name, one in methods.items() if not one["control"]].index(method)
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def _mark_baseline(axes: Axes, content: Content) -> None:
    if content["baseline"]:
        axes.axvline(content["baseline"]["acc_mean"], color="black", linewidth=1, linestyle="--", label="unpruned")
        add_legend(axes)


def _baseline_words(content: Content) -> str:
    return f" Unpruned: {fixed(content['baseline']['acc_mean'])}." if content["baseline"] else ""


def _empty_words(layers: Sequence[str]) -> str:
    return f", empty in layer{'s' if len(layers) > 1 else ''} {', '.join(layers)}" if layers else ""
