"""Read `analysis/model_comparison.json`: parameter counts before and after pruning, in total and per layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espalier.results.legacy.values import Notes, read_count, read_mapping, read_number

# Maps names of the layers table to keys of the file.
_PARAM_COUNTS = {"params": "total", "attention": "attention", "mlp": "mlp"}


@dataclass(frozen=True)
class LayerComparison:
    """Sizes of one layer before and after pruning.

    Attributes:
        layer: Index of the layer.
        params_before: Parameters of the layer in the unpruned model.
        params_after: Parameters of the layer in the pruned model.
        attention_before: Parameters of its attention in the unpruned model.
        attention_after: Parameters of its attention in the pruned model.
        mlp_before: Parameters of its MLP in the unpruned model.
        mlp_after: Parameters of its MLP in the pruned model.
        channels_before: Width of its MLP in the unpruned model; None if the file has no MLP widths.
        channels_after: Width of its MLP in the pruned model; None if the file has no MLP widths.
    """

    layer: int
    params_before: int
    params_after: int
    attention_before: int
    attention_after: int
    mlp_before: int
    mlp_after: int
    channels_before: int | None
    channels_after: int | None


@dataclass(frozen=True)
class ModelComparison:
    """Content of the file.

    Attributes:
        params_before: Parameters of the unpruned model; None if not known.
        params_after: Parameters of the pruned model; None if not known.
        layers: Sizes of each layer. Empty if any layer is incomplete.
    """

    params_before: int | None = None
    params_after: int | None = None
    layers: list[LayerComparison] = field(default_factory=list)

    @property
    def removed_param_fraction(self) -> float | None:
        """Achieved fraction of all parameters that was removed; None if not known."""
        if self.params_before is None or self.params_after is None:
            return None
        return 1 - self.params_after / self.params_before

    @property
    def extreme_pruning_layers(self) -> int | None:
        """Number of layers whose MLP lost more than half of its channels; None if the widths are not known."""
        widths = [(layer.channels_before, layer.channels_after) for layer in self.layers]
        if not widths or any(before is None or after is None for before, after in widths):
            return None
        return sum(2 * (after or 0) < (before or 0) for before, after in widths)


def read_comparison(content: Mapping[str, Any], notes: Notes) -> ModelComparison:
    """Read the content of the file; add a note for each value that is skipped or inconsistent."""
    totals = read_mapping(content, "total_params", notes)
    before, after = _before_and_after(totals, "total_params", notes)
    layers = _read_layers(content.get("layers"), notes)
    comparison = ModelComparison(before if after is not None else None, after, layers)
    claimed = read_number(totals.get("reduction_ratio"), "total_params.reduction_ratio", notes, high=1.0)
    removed = comparison.removed_param_fraction
    if claimed is not None and removed is not None and abs(claimed - removed) > 1e-6:
        notes.add(f"total_params.reduction_ratio is {claimed:.6g}, its counts say {removed:.6g}; these are used")
    if comparison.layers and before is not None and after is not None:
        lost = sum(layer.params_before - layer.params_after for layer in comparison.layers)
        if lost != before - after:
            notes.add(f"the layers lost {lost:,} parameters, the model {before - after:,}")
    return comparison


def _read_layers(layers: Any, notes: Notes) -> list[LayerComparison]:
    if layers is None:
        return []
    if not isinstance(layers, list):
        notes.add("layers is not a list, not read")
        return []
    complete = [
        comparison
        for position, layer in enumerate(layers)
        if (comparison := _read_layer(layer, position, notes)) is not None
    ]
    if len(complete) < len(layers):
        notes.add("a layer is incomplete, so no layer is read")
        return []
    if len({layer.layer for layer in complete}) < len(complete):
        notes.add("two layers have the same layer_idx, so no layer is read")
        return []
    return complete


def _read_layer(layer: Any, position: int, notes: Notes) -> LayerComparison | None:
    if not isinstance(layer, Mapping):
        return None
    index = read_count(layer.get("layer_idx"), f"layer_idx of layer {position}", notes)
    sizes = {"layer": index}
    for name, key in _PARAM_COUNTS.items():
        before, after = _before_and_after(read_mapping(layer, key, notes), f"{key} of layer {position}", notes)
        sizes |= {f"{name}_before": before, f"{name}_after": after}
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(known) < len(sizes) or not known["params_before"]:
        return None
    widths = read_mapping(read_mapping(layer, "mlp", notes), "intermediate_size", notes)
    before, after = _before_and_after(widths, f"intermediate_size of layer {position}", notes)
    return LayerComparison(**known, channels_before=before, channels_after=after)


def _before_and_after(values: Mapping[str, Any], name: str, notes: Notes) -> tuple[int | None, int | None]:
    """Read `original` and `pruned`. Both are None if `pruned` is larger, which cannot be."""
    before = read_count(values.get("original"), f"{name}.original", notes)
    after = read_count(values.get("pruned"), f"{name}.pruned", notes)
    if before is not None and after is not None and after > before:
        notes.add(f"{name} grew from {before:,} to {after:,}, not read")
        return None, None
    return before, after
