"""Read `analysis/gradient_diagnosis.json`: gradient metrics, as defined by the program that wrote the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espalier.results.legacy.values import Notes, read_count, read_mapping, read_number, read_range


@dataclass
class GradientDiagnosis:
    """Content of the file.

    Attributes:
        metrics: `grad_{mean|norm}_ratio` (largest / smallest) and `grad_{mean|norm}_range` (largest - smallest); None
            if missing or not finite.
        extreme_pruning_layers: Number of layers that lost more than half; None if not known.
    """

    metrics: dict[str, float | None] = field(default_factory=dict)
    extreme_pruning_layers: int | None = None


def read_gradients(content: Mapping[str, Any], notes: Notes) -> GradientDiagnosis:
    """Read the content of the file; add a note for each value that is skipped or inconsistent."""
    statistics = read_mapping(content, "gradient_statistics", notes)
    diagnosis = GradientDiagnosis()
    for name in ("mean", "norm"):
        diagnosis.metrics[f"grad_{name}_ratio"] = read_number(statistics.get(f"{name}_ratio"), f"{name}_ratio", notes)
        diagnosis.metrics[f"grad_{name}_range"] = read_range(statistics.get(f"{name}_range"), f"{name}_range", notes)
    diagnosis.extreme_pruning_layers = read_count(content.get("num_extreme_layers"), "num_extreme_layers", notes)
    listed = content.get("extreme_pruning_layers")
    if isinstance(listed, list) and diagnosis.extreme_pruning_layers not in {None, len(listed)}:
        notes.add(
            f"num_extreme_layers is {diagnosis.extreme_pruning_layers}, but {len(listed)} are listed; neither is used"
        )
        diagnosis.extreme_pruning_layers = None
    return diagnosis
