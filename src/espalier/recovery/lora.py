"""Attach LoRA adapters to a pruned model, save them, and merge them into the weights.

A projection has a frozen weight W, (out_features, in_features). With an adapter of rank r it computes

    y = W x + (alpha / r) * B A x,   A (r, in_features) random at the start, B (out_features, r) zero at the start

Only A and B are trained (Hu et al. 2022, "LoRA"). Merging adds (alpha / r) * B A to W. The merged model is an ordinary
pruned model. Adapters are float32 for every dtype of W. The sum is rounded once, to the dtype of W.

A block that lost all of its groups has no projections, so it gets no adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.files import atomic_folder, write_json
from espalier.models.architecture import LAYERS, parts_of
from espalier.models.decoder import ALL_ROLES
from espalier.planning.plan import Plan
from espalier.recovery.fingerprint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, kept_groups_hash


@dataclass(frozen=True)
class LoraSettings:
    """Shape of the adapters.

    Attributes:
        rank: Rank r.
        alpha: Scaling numerator: the output of an adapter is multiplied by alpha / r.
        dropout: Dropout probability of an adapter's inputs during training.
        target_modules: Names of the projections that get an adapter, such as `q_proj`.
        seed: Seed of the initial adapter weights.
    """

    rank: int
    alpha: int
    dropout: float
    target_modules: Sequence[str]
    seed: int


def remaining_projections(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Return the full module names of the requested projections that a pruned model still has.

    Args:
        model: The pruned model.
        names: Names of projections within their blocks, such as `q_proj`. A fused projection is meant by the name of
            any of its parts.

    Raises:
        UserError: If no layer has any of these projections.
    """
    roles = [role for role in ALL_ROLES if set(parts_of(role.name)) & set(names)]
    found = []
    for index, layer in enumerate(model.get_submodule(LAYERS)):
        modules = dict(layer.named_modules())
        found += [f"{LAYERS}.{index}.{role.path}" for role in roles if isinstance(modules.get(role.path), nn.Linear)]
    if not found:
        raise UserError(f"recovery.target_modules: no layer of the pruned model has {', '.join(names)}; name others")
    return found


def attach(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Freeze a pruned model and attach adapters to its projections, in place.

    Raises:
        UserError: If no layer has any of the target projections.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=remaining_projections(model, settings.target_modules),
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        return get_peft_model(model, config)


def save_adapter(model: PeftModel, folder: str | Path, plan: Plan) -> None:
    """Write the adapters and their config in the format of `peft`. The folder is written atomically.

    Args:
        model: The model with its adapters.
        folder: Folder to write.
        plan: Pruning plan of the model. The weight file stores its hash, because an adapter also fits the shapes of
            another plan that keeps the same number of groups.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path = None  # the base model is pruned in memory and exists in no folder
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    with atomic_folder(folder) as temporary:
        # Write a single metadata entry: with several, safetensors varies their order between processes.
        save_file(weights, temporary / ADAPTER_WEIGHTS, metadata={"plan": kept_groups_hash(plan)})
        # Do not use peft's writer: it writes sets in an order that varies between runs.
        values = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
        write_json(temporary / ADAPTER_CONFIG, values)


def merge_adapter(model: PreTrainedModel, folder: str | Path, plan: Plan) -> PreTrainedModel:
    """Add saved adapters to the weights of the pruned model that they were trained on.

    The model is modified in place; use only the returned model afterwards.

    Args:
        model: The base model, pruned by the plan.
        folder: Adapter folder.
        plan: Pruning plan of the model.

    Raises:
        UserError: If the folder is incomplete, if the adapters were trained on another plan, or if their shapes do not
            fit the model.
    """
    folder = Path(folder)
    if missing := [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]:
        raise UserError(f"{folder}: has no {missing[0]}; run `snakemake recovered` again")
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as tensors:
        if (tensors.metadata() or {}).get("plan") != kept_groups_hash(plan):
            raise UserError(f"{folder}: the adapter was trained on another plan; delete it and run again")
        stored = set(tensors.keys())
    try:
        adapted = PeftModel.from_pretrained(model, folder)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder}: the adapter does not fit the model ({reason}); delete it and run again") from None
    # PEFT leaves out tensors of modules that the model does not have.
    if other := sorted(stored ^ set(get_peft_model_state_dict(adapted))):
        raise UserError(f"{folder}: the adapter does not fit the model ({other[0]}); delete it and run again")
    return adapted.merge_and_unload(safe_merge=False).eval()
