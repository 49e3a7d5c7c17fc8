"""Time and peak memory of planning for a model of Llama-3-8B's shape (459,008 groups).

    PYTHONPATH=src .venv/bin/python benchmarks/planning.py

Budget: one plan takes less than 1 s and 300 MB. Time is the best of three runs; memory is traced in a separate run.
"""

import json
import time
import tracemalloc

import numpy as np

from espalier.models.sizes import LayerStructure, ModelStructure
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan
from espalier.planning.scores import PriorColumns, ScoreSettings, score_groups
from espalier.planning.select import Allocation, SelectionOptions, select

LAYER = LayerStructure(8, 5_242_880, 14_336, 12_288, 8_192)
MODEL = ModelStructure((LAYER,) * 32, other_params=2 * 128_256 * 4_096 + 4_096)
GENERATOR = np.random.default_rng(0)
IMPORTANCE = GENERATOR.lognormal(size=32 * (8 + 14_336))
PRIORS = PriorColumns(*GENERATOR.lognormal(size=(3, 32)))
VARIANTS: dict[str, tuple[SelectionOptions, Allocation]] = {
    "global": (SelectionOptions(), "global"),
    "uniform": (SelectionOptions(), "uniform"),
    "freeze, max_layer_ratio 0.3": (SelectionOptions(2, 2, max_layer_ratio=0.3), "global"),
    "collapse_below 0.6": (SelectionOptions(collapse_below=0.6), "global"),
    "mlp_multiple_of 128": (SelectionOptions(mlp_multiple_of=128), "global"),
}


def plan(options: SelectionOptions, allocation: Allocation) -> str:
    groups = GroupTable.of(MODEL)
    scores, _ = score_groups(groups, IMPORTANCE, ScoreSettings("gated", tau=0.5, normalise="block"), PRIORS)
    removed = select(groups, MODEL, scores, 0.2, options, allocation)
    return json.dumps(Plan.from_mask(groups, MODEL, removed).to_dict())


def seconds(options: SelectionOptions, allocation: Allocation) -> float:
    start = time.perf_counter()
    plan(options, allocation)
    return time.perf_counter() - start


def main() -> None:
    for name, variant in VARIANTS.items():
        best_s = min(seconds(*variant) for _ in range(3))
        tracemalloc.start()
        size_bytes = len(plan(*variant))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{name:30} {best_s:6.3f} s {peak_bytes / 1e6:6.0f} MB peak {size_bytes / 1e3:6.0f} kB plan.json")


if __name__ == "__main__":
    main()
