"""Load recovered models: prune the base model, then merge its adapter or replace its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from espalier.models.from_manifest import load_from_manifest
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from espalier.recovery.fingerprint import has_trained_weights
from espalier.recovery.full import load_weights


def apply_recovered(model: PreTrainedModel, folder: str | Path, plan: Plan) -> PreTrainedModel:
    """Merge an adapter into a pruned model, or replace its weights by trained ones.

    The model is modified in place; use only the returned model afterwards.

    Args:
        model: The base model, pruned by the plan.
        folder: Folder that recovery wrote, `adapter` or `trained`.
        plan: Pruning plan of the model.

    Raises:
        UserError: If the folder is incomplete, or was trained on another plan or for other shapes.
    """
    if has_trained_weights(folder):
        return load_weights(model, folder, plan)
    from espalier.recovery.lora import merge_adapter  # needs peft, which trained weights do not need

    return merge_adapter(model, folder, plan)


def load_recovered(
    manifest: Mapping[str, Any], plan: Plan, folder: str | Path, *, dtype: str, device: str
) -> PreTrainedModel:
    """Load a base model, prune it, and apply the result of its recovery.

    The result has no `peft` modules.

    Args:
        manifest: Content of the model's manifest.
        plan: Pruning plan of the model.
        folder: Folder that recovery wrote, `recovered/{model}/{experiment}/adapter` or `.../trained`.
        dtype: As in `espalier.models.loading.load_model`.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UserError: If the model files have changed, or if the plan or the folder does not fit the model.
    """
    model = load_from_manifest(manifest, dtype=dtype, device=device)
    prune(model, *plan.kept_units)
    return apply_recovered(model, folder, plan)
