"""Comparison of a pruned and an unpruned model layer by layer, from the layers table. Reads no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from espalier.analysis.selection import to_int
from espalier.errors import UserError
from espalier.reports.formatting import MISSING
from espalier.reports.layout import banner, table_lines
from espalier.reports.messages import Texts
from espalier.reports.sections.serving import serving_details, serving_remarks, serving_tables
from espalier.reports.sections.types import ReportSection, Table

STRUCTURE_WIDTH = 104


def compare_structure(
    layers: pd.DataFrame,
    total_before: int,
    experiment: str,
    model: str,
    *,
    widths_before: Sequence[tuple[int | None, int | None]] | None = None,
    experts_before: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Compare the pruned model of an experiment with the unpruned model.

    Args:
        layers: The layers table.
        total_before: Parameters of the unpruned model, embeddings included.
        experiment: Name of the experiment.
        model: Name of the model.
        widths_before: Numbers of KV groups and MLP channels of each layer of the unpruned model. If None, the fields
            `kv_groups_before` and `channels_before` are None.
        experts_before: Number of experts of each layer of the unpruned model, 0 in a dense layer. Layers with experts
            get the fields `experts_before` and `experts_after` of their MLP, whose channels are those of each expert.

    Returns:
        `model`, `experiment`, `totals` and `layers`. `totals` has `model`, `decoder_layers`, `attention` and `mlp`,
        each with the parameters `before`, `after`, `removed` and the `removed_fraction`. `layers` has the same fields
        for each layer (`params`) and its blocks, the widths of the blocks, `emptied`: the blocks that lost all
        parameters, and `removed`: whether the layer is removed whole, with its norms.

    Raises:
        UserError: If the table does not have the experiment.
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
            "model": _removal(total_before, total_after),
            "decoder_layers": _removal(sums["params_before"], sums["params_after"]),
            "attention": _removal(sums["attention_before"], sums["attention_after"]),
            "mlp": _removal(sums["mlp_before"], sums["mlp_after"]),
        },
        "layers": [
            _layer_comparison(row, *width, n_experts)
            for row, width, n_experts in zip(
                rows.to_dict("records"), widths, experts_before or [0] * len(rows), strict=True
            )
        ],
    }


def structure_text(comparison: dict[str, Any], language: str = "en") -> str:
    """Return a comparison as plain text."""
    texts = Texts(language)
    lines = [
        *banner(texts("t.title"), STRUCTURE_WIDTH),
        texts("t.model", name=comparison["model"]),
        texts("t.experiment", name=comparison["experiment"]),
        "",
        *_title(texts("t.totals")),
        *table_lines(_totals(texts, comparison["totals"])),
        "",
        *banner(texts("t.layers"), STRUCTURE_WIDTH),
        *table_lines(_layer_table(texts, comparison["layers"])),
        "",
        *banner(texts("t.details"), STRUCTURE_WIDTH),
    ]
    for layer in comparison["layers"]:
        lines += [*_details(texts, layer), ""]
    lines += _serving_lines(texts, comparison.get("deployment"))
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def structure_sections(texts: Texts, comparison: dict[str, Any]) -> list[ReportSection]:
    """Return the sections of the page of a comparison."""
    sections = [
        ReportSection(texts("t.totals"), tables=[_totals(texts, comparison["totals"])]),
        ReportSection(texts("t.layers"), tables=[_layer_table(texts, comparison["layers"])]),
        ReportSection(texts("t.details"), tables=[_width_table(texts, comparison["layers"])]),
    ]
    verdicts = comparison.get("deployment")
    if verdicts is not None:
        reason = [texts("deployment.none", reason=texts.reason(verdicts))] if verdicts["reason"] else []
        tables = [] if reason else serving_tables(texts, verdicts)
        remarks = [] if reason else serving_remarks(texts, verdicts)
        items = [] if reason else serving_details(texts, verdicts)
        sections.append(ReportSection(texts("s.deployment"), reason, tables, remarks, items=items))
    return sections


def _serving_lines(texts: Texts, verdicts: dict[str, Any] | None) -> list[str]:
    """Return the lines on serving targets; none if the comparison has no verdicts."""
    if verdicts is None:
        return []
    lines = banner(texts("s.deployment"), STRUCTURE_WIDTH)
    if verdicts["reason"]:
        return [*lines, texts("deployment.none", reason=texts.reason(verdicts))]
    for table in serving_tables(texts, verdicts):
        lines += [*table_lines(table), ""]
    items = [f"  • {item}" for item in serving_details(texts, verdicts)]
    return [*lines, *items, *([""] if items else []), *serving_remarks(texts, verdicts)]


def _layer_comparison(
    row: dict[Any, Any], n_kv_groups: int | None, n_mlp_channels: int | None, n_experts: int
) -> dict[str, Any]:
    attention = _removal(int(row["attention_before"]), int(row["attention_after"]))
    mlp = _removal(int(row["mlp_before"]), int(row["mlp_after"]))
    blocks = {"attention": attention, "mlp": mlp}
    experts = {"experts_before": n_experts, "experts_after": to_int(row.get("kept_experts"))} if n_experts else {}
    return {
        "layer": int(row["layer"]),
        "params": _removal(int(row["params_before"]), int(row["params_after"])),
        "attention": attention | {"kv_groups_before": n_kv_groups, "kv_groups_after": to_int(row["kept_kv_groups"])},
        "mlp": mlp | {"channels_before": n_mlp_channels, "channels_after": to_int(row["kept_mlp_channels"])} | experts,
        "emptied": [name for name, block in blocks.items() if block["before"] > 0 and block["after"] == 0],
        "removed": int(row["params_before"]) > 0 and int(row["params_after"]) == 0,
    }


def _removal(before: int, after: int) -> dict[str, Any]:
    removed = before - after
    return {
        "before": before,
        "after": after,
        "removed": removed,
        "removed_fraction": removed / before if before else None,
    }


def _totals(texts: Texts, totals: dict[str, Any]) -> Table:
    names = {"model": "t.total", "decoder_layers": "t.decoder", "attention": "t.attention", "mlp": "t.mlp"}
    rows = [
        [
            texts(names[key]), *(f"{one[part]:,}" for part in ("before", "after", "removed")),
            _percent(one["removed_fraction"]),
        ]
        for key, one in totals.items()
    ]  # fmt: skip
    header = [texts(code) for code in ("t.part", "t.before", "t.after", "t.removed", "t.removed_share")]
    return Table(header, rows)


def _layer_table(texts: Texts, layers: list[dict[str, Any]]) -> Table:
    rows = []
    for layer in layers:
        params = layer["params"]
        kept = None if params["removed_fraction"] is None else 1 - params["removed_fraction"]
        shares = [kept, *(layer[part]["removed_fraction"] for part in ("params", "attention", "mlp"))]
        note = texts("t.layer_removed") if layer["removed"] else ""
        note = note or " ".join(texts(f"t.{block}_empty") for block in layer["emptied"])
        rows.append(
            [str(layer["layer"]), f"{params['before']:,}", f"{params['after']:,}", *map(_percent, shares), note]
        )
    codes = (
        "t.layer", "t.layer_before", "t.layer_after", "t.kept_share", "t.pruned_share", "t.attention_share",
        "t.mlp_share", "t.note",
    )  # fmt: skip
    return Table([texts(code) for code in codes], rows, (7,))


def _width_table(texts: Texts, layers: list[dict[str, Any]]) -> Table:
    """Return the parameters and widths of each block before and after pruning."""
    header = [texts("t.layer")]
    for block in ("attention", "mlp"):
        header += [f"{texts(f't.{block}')}, {texts('n.params')}", texts(f"n.{block}_width")]
    rows = []
    for layer in layers:
        row = [str(layer["layer"])]
        for block, width in (("attention", "kv_groups"), ("mlp", "channels")):
            one = layer[block]
            row.append(f"{one['before']:,} → {one['after']:,}")
            row.append(" → ".join(_width(texts, one, width, when) for when in ("before", "after")))
        rows.append(row)
    return Table(header, rows)


def _details(texts: Texts, layer: dict[str, Any]) -> list[str]:
    lines = [f"{texts('t.layer')} {layer['layer']}:{' ' + texts('t.layer_removed') if layer['removed'] else ''}"]
    for block, width in (("attention", "kv_groups"), ("mlp", "channels")):
        one = layer[block]
        before, after = (_count(texts, one[f"{width}_{when}"]) for when in ("before", "after"))
        share = _percent(one["removed_fraction"])
        empty = f" {texts(f't.{block}_empty')}" if block in layer["emptied"] else ""
        lines += [
            f"  {texts(f't.{block}')}:{empty}",
            "    " + texts("t.params", before=f"{one['before']:,}", after=f"{one['after']:,}", share=share),
        ]
        # The number of KV groups is not known for imported experiments.
        if {before, after} != {MISSING}:
            lines.append("    " + texts(f"t.{width}", before=before, after=after))
        if "experts_before" in one:
            before, after = (_count(texts, one[f"experts_{when}"]) for when in ("before", "after"))
            lines.append("    " + texts("t.experts", before=before, after=after))
    return lines


def _width(texts: Texts, block: dict[str, Any], width: str, when: str) -> str:
    """Format the width of a block, such as `96`, or `8 x 96` with experts."""
    experts = f"{_count(texts, block[f'experts_{when}'])} x " if "experts_before" in block else ""
    return experts + _count(texts, block[f"{width}_{when}"])


def _count(texts: Texts, value: int | None) -> str:
    """Format a width. Chinese reports have no thousands separators here, like the reference reports."""
    return MISSING if value is None else f"{value:,}" if texts.language == "en" else str(value)


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.2f}%"


def _title(title: str) -> list[str]:
    return ["-" * STRUCTURE_WIDTH, title, "-" * STRUCTURE_WIDTH]
