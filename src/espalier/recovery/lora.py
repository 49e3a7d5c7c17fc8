"""LoRA adapters on a pruned model: attached, saved, merged.

A projection with frozen weight W, (out_features, in_features), computes with an adapter of rank r

    y = W x + (alpha / r) * B A x,   A (r, in_features) drawn at random, B (out_features, r) zero at first

and only A and B are trained (Hu et al. 2022, "LoRA"). Merging adds (alpha / r) * B A to W, after which the model is an
ordinary pruned one. Adapters are float32 whatever the type of W; the sum is rounded once, to the type of W.

Blocks that lost all of their groups have no projection to adapt, and get none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.files import sha256_of_json, whole_folder, write_json
from espalier.models.architecture import LAYERS
from espalier.models.decoder import ROLES
from espalier.models.from_manifest import load_from_manifest
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from espalier.recovery.fingerprint import CONFIG, WEIGHTS


@dataclass(frozen=True)
class LoraSettings:
    """Shape of the adapters.

    Attributes:
        rank: Rank r.
        alpha: Adapters are multiplied by alpha / r.
        dropout: Share of an adapter's inputs that is dropped in training.
        target_modules: Names of the projections that get one.
        seed: Seed of the first weights.
    """

    rank: int
    alpha: int
    dropout: float
    target_modules: Sequence[str]
    seed: int


def projections_left(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Return the full names of the projections with these role names that a pruned model still has.

    Raises:
        UserError: If none is left.
    """
    roles = [role for role in ROLES if role.name in names]
    found = []
    for number, layer in enumerate(model.get_submodule(LAYERS)):
        modules = dict(layer.named_modules())
        found += [f"{LAYERS}.{number}.{role.path}" for role in roles if isinstance(modules.get(role.path), nn.Linear)]
    if not found:
        raise UserError(f"recovery.target_modules: no layer of the pruned model has {', '.join(names)}; name others")
    return found


def attach(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Freeze a pruned model and give its projections adapters, in place.

    Raises:
        UserError: If none of the projections is left.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=projections_left(model, settings.target_modules),
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        return get_peft_model(model, config)


def save_adapter(model: PeftModel, folder: str | Path, plan: Plan) -> None:
    """Write the adapters and their config as `peft` reads them; the folder appears whole or not at all.

    Args:
        model: The model with its adapters.
        folder: Where to write them.
        plan: What the model keeps; its hash goes into the file, because other groups of the same number would fit too.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path = None  # the base is a pruned model, which no folder holds
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    with whole_folder(folder) as temporary:
        # One entry only: safetensors writes several in an order that differs from process to process.
        save_file(weights, temporary / WEIGHTS, metadata={"plan": _hash(plan)})
        # Not peft's own way, which writes sets in an order that differs from run to run.
        values = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
        write_json(temporary / CONFIG, values)


def merge_adapter(model: PreTrainedModel, folder: str | Path, plan: Plan) -> PreTrainedModel:
    """Add saved adapters to the weights of the pruned model they were trained on; the model is used up.

    Args:
        model: The base model, pruned by the plan.
        folder: Folder of the adapters.
        plan: What the model keeps.

    Raises:
        UserError: If the folder is incomplete, or the adapters do not fit the model.
    """
    folder = Path(folder)
    if missing := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        raise UserError(f"{folder}: has no {missing[0]}; run `snakemake recovered` again")
    with safe_open(folder / WEIGHTS, framework="pt") as tensors:
        if (tensors.metadata() or {}).get("plan") != _hash(plan):
            raise UserError(f"{folder}: the adapter was trained on another plan; run `snakemake recovered` again")
    try:
        adapted = PeftModel.from_pretrained(model, folder)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder}: the adapter does not fit the model ({reason}); recover it again") from None
    return adapted.merge_and_unload(safe_merge=False).eval()


def load_recovered(
    manifest: Mapping[str, Any], plan: Plan, adapter: str | Path, *, dtype: str, device: str, gpus: int = 1
) -> PreTrainedModel:
    """Load a base model, prune it, and merge an adapter: the recovered model, without any trace of `peft`.

    Args:
        manifest: Content of the model's manifest.
        plan: What the pruned model keeps.
        adapter: Folder of the adapter, `recovered/{model}/{experiment}/adapter`.
        dtype: As `espalier.models.loading.load_model`.
        device: `auto`, `cpu` or `cuda`.
        gpus: GPUs to spread the model over.

    Raises:
        UserError: If the model has changed, or plan or adapter do not fit it.
    """
    model = load_from_manifest(manifest, dtype=dtype, device=device, gpus=gpus)
    prune(model, plan.kept_kv_groups, plan.kept_mlp_channels)
    return merge_adapter(model, adapter, plan)


def _hash(plan: Plan) -> str:
    return sha256_of_json(plan.to_dict()["layers"])
