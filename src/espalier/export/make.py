"""Export one checkpoint: check its sources, prune the model, write it, load it again and compare.

The checkpoint folder is written completely or not at all.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.export.build import (
    STUB_CHANNELS,
    check_target,
    export_model,
    find_stock_shape,
    layer_sizes,
    stock_model,
)
from espalier.export.card import write_card
from espalier.export.folder import full_disk_named, tokens_of, write_beside, write_model
from espalier.export.fresh_process import PARITY_TEXTS, check_in_fresh_process
from espalier.export.licence import licence_of
from espalier.export.parity import Tensors, logits_of, make_prompts, reference
from espalier.export.sources import BYTES, check_plan, check_recovered, check_space, check_weights
from espalier.files import atomic_folder, write_json
from espalier.models.from_manifest import load_from_manifest
from espalier.models.loading import load_tokenizer
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from espalier.planning.stock import StockShape

logger = logging.getLogger(__name__)


def export_checkpoint(
    manifest: Mapping[str, Any],
    description: Mapping[str, Any],
    *,
    dtype: str,
    stubs: bool,
    checkpoint: Path,
    recovered: Path | None = None,
) -> None:
    """Write a pruned model as a folder that transformers loads.

    If all layers of the plan have one shape, the folder is a stock checkpoint, without code of ours.

    Args:
        manifest: Manifest of the base model.
        description: Description of the export (`espalier.export.describe`).
        dtype: `stored`, `float32`, `bfloat16` or `float16`.
        stubs: Whether removed blocks are written as zeros, for vLLM.
        checkpoint: The folder to write.
        recovered: Folder of an adapter to merge, or of trained weights (`espalier.recovery`); None for a model that
            was only pruned.

    Raises:
        UserError: If plan, results and weights do not belong together, if the model type cannot be exported, if the
            description asks for a stock checkpoint and the plan has no stock shape, if `dtype` cannot hold the values,
            if the disk is too small, or if the loaded checkpoint differs from the evaluated model. No incomplete folder
            is left behind.
    """
    plan = check_plan(manifest, description["plan"], description["results"])
    shape = find_stock_shape(plan, manifest, required=description.get("stock", False))
    if shape is None:
        check_target(manifest["model"], manifest["model_type"])
    check_recovered(description["results"], recovered)
    n_params = description["results"]["n_params"] + (_stub_params(manifest, plan) if stubs else 0)
    check_space(checkpoint.parent, manifest, n_params, dtype)
    base = check_weights(manifest)
    with full_disk_named(checkpoint), atomic_folder(checkpoint) as folder:
        tokenizer = load_tokenizer(base)
        model = _prepare(manifest, plan, recovered)
        expected, cast = _write_export(model, plan, shape, dtype, stubs=stubs, folder=folder, n_params=n_params)
        write_beside(base, tokenizer, description["plan"], manifest, folder)
        logger.info("loading the checkpoint in a fresh process")
        found = check_in_fresh_process(folder, expected, tokens_of(tokenizer, PARITY_TEXTS)) | cast
        write_json(folder / "parity.json", found)
        write_card(
            description, manifest, licence_of(base), found, plan, stubs=stubs, is_stock=shape is not None, folder=folder
        )
    difference = found["logits"]["max_abs_difference"]
    logger.info("%s: written; logits differ by %.2g from those of the evaluated model", checkpoint, difference)


def _prepare(manifest: Mapping[str, Any], plan: Plan, recovered: Path | None) -> PreTrainedModel:
    """Load and prune the model as the evaluation does, and apply the result of its recovery if there is one."""
    if recovered is None:
        model = load_from_manifest(manifest, dtype="auto", device="cpu")
        prune(model, *plan.kept_units)
        return model
    from espalier.recovery.load import load_recovered

    return load_recovered(manifest, plan, recovered, dtype="auto", device="cpu")


def _write_export(
    model: PreTrainedModel,
    plan: Plan,
    shape: StockShape | None,
    dtype: str,
    *,
    stubs: bool,
    folder: Path,
    n_params: int,
) -> tuple[Tensors, dict[str, Any]]:
    """Write the exported model; return the reference for the check and the dtype entries of `parity.json`.

    The weights of `model` are cast in place: first to the exported dtype, then to float32 for the reference.
    """
    n_query = model.config.num_attention_heads // model.config.num_key_value_heads
    prompts = make_prompts(model.config.vocab_size, model.config.max_position_embeddings)
    stored, before = model.dtype, None
    if dtype in BYTES and getattr(torch, dtype) != stored:
        before = logits_of(_cast(model, "float32"), prompts)
        _cast(model, dtype)
        _check_cast_finite(model, dtype)
    logger.info("writing %s parameters", f"{n_params:,}")
    exported = stock_model(model, shape) if shape else export_model(model, plan, stubs=stubs)
    if (n_written := exported.num_parameters()) != n_params:
        raise RuntimeError(f"the export has {n_written:,} parameters instead of {n_params:,}")
    write_model(exported, None if shape else layer_sizes(plan, n_query, stubs=stubs), folder)
    cast: dict[str, Any] = {"weights_dtype": _dtype_name(model.dtype)}
    del exported
    logger.info("computing what a loaded checkpoint must reproduce")
    expected = reference(_cast(model, "float32"), prompts)
    if before is not None:
        cast["rounding"] = {
            "from": _dtype_name(stored),
            "max_abs_logit_difference": float((expected["logits"] - before).abs().max()),
        }
    del model
    gc.collect()
    return expected, cast


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _cast(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """Cast the parameters in place, one at a time. Buffers (rotary frequencies) keep their dtype, as in loading."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return model


def _check_cast_finite(model: PreTrainedModel, dtype: str) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise UserError(f"export.dtype: {dtype} cannot hold the values of {name}; give bfloat16, float32 or stored")


def _stub_params(manifest: Mapping[str, Any], plan: Plan) -> int:
    """Return the number of parameters in the blocks of zeros that replace removed blocks."""
    layers = zip(manifest["structure"]["layers"], plan.kept, strict=True)
    return sum(
        (0 if kept.n_kv_groups else layer["kv_group_params"])
        + (0 if kept.n_mlp_channels else STUB_CHANNELS * layer["mlp_channel_params"])
        for layer, kept in layers
        if not kept.is_removed
    )
