"""Read `analysis/model_comparison.json`: parameter counts before and after pruning, in total and per layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espalier.results.legacy.values import Notes, count, number, section

# Maps names of the layers table to keys of the file.
BLOCKS = {"params": "total", "attention": "attention", "mlp": "mlp"}


@dataclass
class Compared:
    """Content of the file.

    Attributes:
        params_before: Parameters of the unpruned model; None if not known.
        params_after: Parameters of the pruned model; None if not known.
        layers: One mapping per layer: `layer`, `{params|attention|mlp}_{before|after}`, and `channels_before` and
            `channels_after`, which are None if the file has no MLP widths. Empty if any layer is incomplete.
    """

    params_before: int | None = None
    params_after: int | None = None
    layers: list[dict[str, int | None]] = field(default_factory=list)

    @property
    def removed_param_fraction(self) -> float | None:
        """Achieved fraction of all parameters that was removed; None if not known."""
        if self.params_before is None or self.params_after is None:
            return None
        return 1 - self.params_after / self.params_before

    @property
    def extreme_pruning_layers(self) -> int | None:
        """Number of layers whose MLP lost more than half of its channels; None if the widths are not known."""
        widths = [(layer["channels_before"], layer["channels_after"]) for layer in self.layers]
        if not widths or any(before is None or after is None for before, after in widths):
            return None
        return sum(2 * (after or 0) < (before or 0) for before, after in widths)


def read_comparison(content: Mapping[str, Any], notes: Notes) -> Compared:
    """Read the content of the file; add a note for each value that is skipped or inconsistent."""
    before, after = _pair(section(content, "total_params", notes), "total_params", notes)
    found = Compared(before if after is not None else None, after, _layers(content.get("layers"), notes))
    claimed = number(
        section(content, "total_params", notes).get("reduction_ratio"), "total_params.reduction_ratio", notes, high=1.0
    )
    removed = found.removed_param_fraction
    if claimed is not None and removed is not None and abs(claimed - removed) > 1e-6:
        notes.add(f"total_params.reduction_ratio is {claimed:.6g}, its counts say {removed:.6g}; these are used")
    if found.layers and before is not None and after is not None:
        lost = sum((layer["params_before"] or 0) - (layer["params_after"] or 0) for layer in found.layers)
        if lost != before - after:
            notes.add(f"the layers lost {lost:,} parameters, the model {before - after:,}")
    return found


def _layers(layers: Any, notes: Notes) -> list[dict[str, int | None]]:
    if layers is None:
        return []
    if not isinstance(layers, list):
        notes.add("layers is not a list, not read")
        return []
    found = [_layer(layer, position, notes) for position, layer in enumerate(layers)]
    complete = [layer for layer in found if layer is not None]
    if len(complete) < len(found):
        notes.add("a layer is incomplete, so no layer is read")
        return []
    if len({layer["layer"] for layer in complete}) < len(complete):
        notes.add("two layers have the same layer_idx, so no layer is read")
        return []
    return complete


def _layer(layer: Any, position: int, notes: Notes) -> dict[str, int | None] | None:
    if not isinstance(layer, Mapping):
        return None
    row: dict[str, int | None] = {"layer": count(layer.get("layer_idx"), f"layer_idx of layer {position}", notes)}
    for name, key in BLOCKS.items():
        before, after = _pair(section(layer, key, notes), f"{key} of layer {position}", notes)
        row |= {f"{name}_before": before, f"{name}_after": after}
    if any(value is None for value in row.values()) or not row["params_before"]:
        return None
    widths = section(section(layer, "mlp", notes), "intermediate_size", notes)
    before, after = _pair(widths, f"intermediate_size of layer {position}", notes)
    return row | {"channels_before": before, "channels_after": after}


def _pair(values: Mapping[str, Any], name: str, notes: Notes) -> tuple[int | None, int | None]:
    """Read `original` and `pruned`. Both are None if `pruned` is larger, which cannot be."""
    before = count(values.get("original"), f"{name}.original", notes)
    after = count(values.get("pruned"), f"{name}.pruned", notes)
    if before is not None and after is not None and after > before:
        notes.add(f"{name} grew from {before:,} to {after:,}, not read")
        return None, None
    return before, after
