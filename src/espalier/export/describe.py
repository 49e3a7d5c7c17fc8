"""What is exported: one experiment with its plan and its numbers, in a small file that changes only when they do.

Times and library versions of the evaluations are left out, so that evaluating again with equal results exports nothing
anew. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.naming import BASELINE
from espalier.recipe import check_made_from, evaluation_settings, weights_of

_RESULTS = ("n_params", "tasks", "acc_mean", "perplexity", "protocol")


def describe_export(
    *,
    plan: Mapping[str, Any],
    metrics: Mapping[str, Any],
    baseline: Mapping[str, Any],
    best: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    manifest: Mapping[str, Any],
    experiment: str,
    evaluation: Mapping[str, Any],
) -> dict[str, Any]:
    """Join what a checkpoint is made from and what its card says.

    Args:
        plan: Content of `plan.json`.
        metrics: Content of its `metrics.json`.
        baseline: Content of the unpruned model's `metrics.json`.
        best: Content of `global_best_config.json` if the experiment is exported as the best one.
        settings: `base` (name, family, kind, hub, revision) and `calibration` (dataset, config, split), as configured.
        manifest: Manifest of the model.
        experiment: Name of the experiment.
        evaluation: `protocol` and `dtype`, as configured.

    Raises:
        UserError: If plan or metrics are of another model or experiment, or made from other weights, another plan or by
            another protocol.
    """
    _check_results(plan, metrics, baseline, manifest=manifest, experiment=experiment, evaluation=evaluation)
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


def _check_results(
    plan: Mapping[str, Any],
    metrics: Mapping[str, Any],
    baseline: Mapping[str, Any],
    *,
    manifest: Mapping[str, Any],
    experiment: str,
    evaluation: Mapping[str, Any],
) -> None:
    model = manifest["model"]
    what = f"export: model {model!r}, experiment {experiment!r}"
    check_made_from(
        f"{what}, plan.json", plan, model=model, experiment=experiment, settings={"weights": weights_of(manifest)},
        remedy="restore that revision of the model, or make the plan again",
    )  # fmt: skip
    adapter = metrics["recipe"]["settings"].get("adapter")  # compared with the adapter itself when it is merged
    for content, cut, name, merged in ((metrics, plan, experiment, adapter), (baseline, None, BASELINE, None)):
        settings = evaluation_settings(manifest, cut, **evaluation, requests=None, adapter=merged)
        check_made_from(
            f"{what}, metrics.json of {name!r}", content, model=model, experiment=name, settings=settings,
            remedy="run `snakemake evaluations` again",
        )  # fmt: skip
