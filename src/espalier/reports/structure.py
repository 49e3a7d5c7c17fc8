"""What an experiment removed, layer by layer, from the layers table; no weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from espalier.errors import UserError
from espalier.reports.sections import MISSING

WIDTH = 104


def compare_structure(
    layers: pd.DataFrame,
    total_before: int,
    experiment: str,
    model: str,
    *,
    widths_before: Sequence[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Compare a pruned model with the unpruned one.

    Args:
        layers: The layers table.
        total_before: Parameters of the unpruned model, embeddings included.
        experiment: Name of the experiment.
        model: Name of the model.
        widths_before: KV groups and MLP channels of each layer of the unpruned model; without them those are null.

    Returns:
        `totals` (model, decoder_layers, attention, mlp: before, after, removed, removed_fraction) and `layers`: the
        same for each layer and its blocks, their widths, and `emptied`, the blocks with nothing left.

    Raises:
        UserError: If the table has no such experiment.
    """
    rows = layers[(layers["model"] == model) & (layers["experiment"] == experiment)].sort_values("layer")
    if rows.empty:
        raise UserError(f"{model}, {experiment}: is not in the layers table")
    sums = {column: int(rows[column].sum()) for column in rows.columns if column.endswith(("_before", "_after"))}
    total_after = total_before - sums["params_before"] + sums["params_after"]
    widths = [(None, None)] * len(rows) if widths_before is None else list(widths_before)
    return {
        "model": model,
        "experiment": experiment,
        "totals": {
            "model": _change(total_before, total_after),
            "decoder_layers": _change(sums["params_before"], sums["params_after"]),
            "attention": _change(sums["attention_before"], sums["attention_after"]),
            "mlp": _change(sums["mlp_before"], sums["mlp_after"]),
        },
        "layers": [_layer(row, *width) for row, width in zip(rows.to_dict("records"), widths, strict=True)],
    }


def structure_text(comparison: dict[str, Any]) -> str:
    """Write a comparison as plain text."""
    lines = [
        *_title("What pruning removed"),
        f"Model:      {comparison['model']}",
        f"Experiment: {comparison['experiment']}",
        "",
        *_totals(comparison["totals"]),
        "",
        *_title("Layers"),
        *_layer_table(comparison["layers"]),
        "",
        *_title("Attention and MLP of each layer"),
    ]
    for layer in comparison["layers"]:
        lines += [*_details(layer), ""]
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _layer(row: dict[Any, Any], n_kv_groups: int | None, n_mlp_channels: int | None) -> dict[str, Any]:
    attention = _change(int(row["attention_before"]), int(row["attention_after"]))
    mlp = _change(int(row["mlp_before"]), int(row["mlp_after"]))
    blocks = {"attention": attention, "mlp": mlp}
    return {
        "layer": int(row["layer"]),
        "params": _change(int(row["params_before"]), int(row["params_after"])),
        "attention": attention | {"kv_groups_before": n_kv_groups, "kv_groups_after": int(row["kept_kv_groups"])},
        "mlp": mlp | {"channels_before": n_mlp_channels, "channels_after": int(row["kept_mlp_channels"])},
        "emptied": [name for name, block in blocks.items() if block["before"] > 0 and block["after"] == 0],
    }


def _change(before: int, after: int) -> dict[str, Any]:
    removed = before - after
    return {
        "before": before,
        "after": after,
        "removed": removed,
        "removed_fraction": removed / before if before else None,
    }


def _totals(totals: dict[str, Any]) -> list[str]:
    names = {"model": "All parameters", "decoder_layers": "Decoder layers", "attention": "Attention", "mlp": "MLP"}
    rows = [
        [names[key], *(f"{one[part]:,}" for part in ("before", "after", "removed")), _percent(one["removed_fraction"])]
        for key, one in totals.items()
    ]
    return _tabulate(["Part", "Before", "After", "Removed", "Removed %"], rows, n_text_columns=1)


def _layer_table(layers: list[dict[str, Any]]) -> list[str]:
    rows = []
    for layer in layers:
        params = layer["params"]
        kept = None if params["removed_fraction"] is None else 1 - params["removed_fraction"]
        shares = [kept, *(layer[part]["removed_fraction"] for part in ("params", "attention", "mlp"))]
        note = ", ".join(f"{_NAMES[block]} empty" for block in layer["emptied"])
        rows.append(
            [str(layer["layer"]), f"{params['before']:,}", f"{params['after']:,}", *map(_percent, shares), note]
        )
    header = ["Layer", "Before", "After", "Kept %", "Pruned %", "Attention pruned %", "MLP pruned %", "Note"]
    return _tabulate(header, rows, n_text_columns=0)


def _details(layer: dict[str, Any]) -> list[str]:
    lines = [f"Layer {layer['layer']}"]
    for block, width, label in (("attention", "kv_groups", "KV groups"), ("mlp", "channels", "channels")):
        one = layer[block]
        before = MISSING if one[f"{width}_before"] is None else f"{one[f'{width}_before']:,}"
        lines += [
            f"  {_NAMES[block]}{' (empty)' if block in layer['emptied'] else ''}",
            f"    parameters: {one['before']:,} -> {one['after']:,} ({_percent(one['removed_fraction'])} removed)",
            f"    {label}: {before} -> {one[f'{width}_after']:,}",
        ]
    return lines


_NAMES = {"attention": "Attention", "mlp": "MLP"}


def _tabulate(header: list[str], rows: list[list[str]], *, n_text_columns: int) -> list[str]:
    align = ["left"] * n_text_columns + ["right"] * (len(header) - n_text_columns)
    if header[-1] == "Note":
        align[-1] = "left"
    return tabulate(rows, header, tablefmt="simple", colalign=align, disable_numparse=True).splitlines()


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.2f}%"


def _title(title: str) -> list[str]:
    return ["=" * WIDTH, title, "=" * WIDTH]
