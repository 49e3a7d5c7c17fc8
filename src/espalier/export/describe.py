"""What is exported: one experiment with its plan and its numbers, in a small file that changes only when they do.

Times and library versions of the evaluations are left out, so that evaluating again with equal results exports nothing
anew. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RESULTS = ("n_params", "tasks", "acc_mean", "perplexity", "protocol")


def describe_export(
    *,
    plan: Mapping[str, Any],
    metrics: Mapping[str, Any],
    baseline: Mapping[str, Any],
    best: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Join what a checkpoint is made from and what its card says.

    Args:
        plan: Content of `plan.json`.
        metrics: Content of its `metrics.json`.
        baseline: Content of the unpruned model's `metrics.json`.
        best: Content of `global_best_config.json` if the experiment is exported as the best one.
        settings: `base` (name, family, kind, hub, revision) and `calibration` (dataset, config, split), as configured.
    """
    recipe = metrics["recipe"]["settings"]
    return {
        "chosen": None if best is None else {"pruning_ratio": best["pruning_ratio"], "by": "acc_mean"},
        **settings,
        "plan": dict(plan),
        "results": {
            **{key: metrics[key] for key in _RESULTS},
            "weights": recipe["weights"],
            "plan": recipe["plan"],
            "dtype": recipe["dtype"],
            "adapter": recipe.get("adapter"),
        },
        "baseline": {key: baseline[key] for key in _RESULTS},
    }
