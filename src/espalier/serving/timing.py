"""Measure the prefill and decode times of a model and of its pruned versions in one process.

Each repeat runs every version once, in a new random order. Disturbances of the machine and after-effects of the
previous run then affect all versions alike. Generation is greedy and uses the forward pass and KV cache of
transformers, without a serving engine. The comparison therefore shows the effect of the weight shapes only.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.models.architecture import LAYERS
from espalier.models.context import context_length
from espalier.models.decoder import (
    Block,
    block_roles,
    get_block,
    get_projection,
    head_dim,
    n_kv_groups,
    n_mlp_channels,
)
from espalier.models.surgery import prune
from espalier.progress import Progress


def has_groups(layer: nn.Module, block: Block) -> bool:
    """Return whether a block still has groups. A block that lost all groups has lost its input projections too."""
    return hasattr(get_block(layer, block), block_roles(block)[0].name)


def pad_widths(model: nn.Module, multiple: int) -> int:
    """Pad the MLP width of each layer with zero channels to the next multiple, in place.

    Padded weights are new parameters. Layers without MLP channels are not changed.

    Args:
        model: A decoder, pruned or not.
        multiple: Number that every MLP width is rounded up to a multiple of.

    Returns:
        Number of padded layers.
    """
    padded = 0
    for layer in model.get_submodule(LAYERS):
        if not has_groups(layer, "mlp"):
            continue
        if lacking := -n_mlp_channels(layer) % multiple:
            _pad(layer, lacking)
            padded += 1
    return padded


def _pad(layer: nn.Module, lacking: int) -> None:
    for role in block_roles("mlp"):
        linear = get_projection(layer, role)
        linear.weight = _with_zeros(linear.weight, role.group_dim, lacking)
        if role.group_dim == 0 and linear.bias is not None:
            linear.bias = _with_zeros(linear.bias, 0, lacking)
        linear.out_features, linear.in_features = linear.weight.shape
    mlp = get_block(layer, "mlp")
    if hasattr(mlp, "intermediate_size"):
        mlp.intermediate_size = n_mlp_channels(layer)


def _with_zeros(parameter: nn.Parameter, dim: int, lacking: int) -> nn.Parameter:
    shape = list(parameter.shape)
    shape[dim] = lacking
    zeros = parameter.new_zeros(shape)
    return nn.Parameter(torch.cat([parameter.detach(), zeros], dim), requires_grad=parameter.requires_grad)


UNPRUNED, PRUNED, PADDED = "unpruned", "pruned", "padded"
WARM_UP_TOKENS = 4
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Load:
    """Workload of a measurement.

    Attributes:
        batch_sizes: Batch sizes to measure.
        prompt_tokens: Tokens per prompt.
        new_tokens: Tokens to generate per prompt. The prefill produces the first of them.
        repeats: Timed runs per version and batch size.
    """

    batch_sizes: Sequence[int]
    prompt_tokens: int
    new_tokens: int
    repeats: int

    @property
    def cached_tokens(self) -> int:
        """Tokens per sequence in the KV cache at the end. The last generated token is not cached."""
        return self.prompt_tokens + self.new_tokens - 1


@dataclass(frozen=True)
class Run:
    """One timed generation.

    Attributes:
        batch_size: Sequences per batch.
        repeat: Index of the repeat, from 0.
        version: Name of the version: `unpruned`, `pruned` or `padded`.
        prefill_s: Time to process the prompts and produce the first token of each.
        decode_s: Time to generate the remaining tokens.
        cache_bytes: Size of the tensors in the KV cache at the end.
        beyond_weights_bytes: Peak memory allocated during the run in addition to the memory allocated before it,
            summed over the GPUs; None on a CPU.
    """

    batch_size: int
    repeat: int
    version: str
    prefill_s: float
    decode_s: float
    cache_bytes: int
    beyond_weights_bytes: int | None


def versions_of(
    model: PreTrainedModel,
    kept_kv_groups: Sequence[Sequence[int]],
    kept_mlp_channels: Sequence[Sequence[int]],
    *,
    multiple: int,
) -> dict[str, PreTrainedModel]:
    """Return the model, its pruned version, and the pruned version with MLP widths padded to a multiple.

    The versions share all tensors that pruning or padding does not change.

    Args:
        model: The unpruned model; it is not modified.
        kept_kv_groups: For each layer, the KV groups to keep, in increasing order.
        kept_mlp_channels: For each layer, the MLP channels to keep, in increasing order.
        multiple: Number that the padded MLP widths are multiples of.

    Returns:
        Models by version name: `unpruned`, `pruned` and `padded`. `padded` is absent if all widths are multiples
        already.

    Raises:
        UserError: If the plan does not fit the model.
    """
    versions = {UNPRUNED: model, PRUNED: _sharing(model)}
    prune(versions[PRUNED], kept_kv_groups, kept_mlp_channels)
    padded = _sharing(versions[PRUNED])
    if pad_widths(padded, multiple):
        versions[PADDED] = padded
    return versions


def measure(versions: Mapping[str, PreTrainedModel], load: Load, *, seed: int = 0) -> list[Run]:
    """Run every version at every batch size, `load.repeats` times each, after one warm-up run.

    Args:
        versions: Versions of one model by name.
        load: Workload of the measurement.
        seed: Seed of the random prompts and of the order of the versions.

    Raises:
        UserError: If prompt and generated tokens exceed the context length, or if a batch does not fit into memory.
    """
    names, model = list(versions), next(iter(versions.values()))
    _check(model, load)
    generator = torch.Generator().manual_seed(seed)
    runs: list[Run] = []
    total = len(load.batch_sizes) * (load.repeats + 1) * len(versions)
    with Progress("measuring", total=total, unit="runs") as progress, torch.inference_mode():
        for batch_size in load.batch_sizes:
            shape = (batch_size, load.prompt_tokens)
            prompts = torch.randint(0, model.config.vocab_size, shape, generator=generator).to(model.device)
            for repeat in range(-1, load.repeats):  # -1 warms up
                for name in [names[index] for index in torch.randperm(len(names), generator=generator)]:
                    run = _run(versions[name], prompts, load, repeat, name)
                    runs += [run] if repeat >= 0 else []
                    progress.advance(1)
    return runs


def weights_bytes(model: PreTrainedModel) -> int:
    """Return the size of the weights. A parameter that a model uses twice (tied embeddings) counts once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def kv_cache_bytes_per_token(model: PreTrainedModel) -> int:
    """Return the size of the keys and values of one token over all layers, computed from the weight shapes."""
    with_attention = [layer for layer in model.get_submodule(LAYERS) if has_groups(layer, "attention")]
    numbers = sum(2 * n_kv_groups(layer) * head_dim(layer) for layer in with_attention)
    return numbers * int(torch.finfo(model.dtype).bits) // 8


def _run(model: PreTrainedModel, prompts: torch.Tensor, load: Load, repeat: int, name: str) -> Run:
    new_tokens = load.new_tokens if repeat >= 0 else min(load.new_tokens, WARM_UP_TOKENS)
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    before = {device: torch.cuda.memory_allocated(device) for device in devices}
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        prefill_s, decode_s, cache_bytes = _generate(model, prompts, new_tokens, devices)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not any(words in str(error) for words in _NO_MEMORY):
            raise
        raise _too_large(len(prompts), "ran out of memory") from None
    peak = sum(torch.cuda.max_memory_allocated(device) - before[device] for device in devices) if devices else None
    return Run(len(prompts), repeat, name, prefill_s, decode_s, cache_bytes, peak)


def _generate(
    model: PreTrainedModel, prompts: torch.Tensor, new_tokens: int, devices: set[torch.device]
) -> tuple[float, float, int]:
    """Return the prefill time (s), the decode time (s) and the size of the KV cache (bytes)."""
    start = _now(devices)
    output = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
    token = output.logits[:, -1].argmax(-1, keepdim=True)  # (batch, 1)
    first = _now(devices)
    for _ in range(new_tokens - 1):
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1].argmax(-1, keepdim=True)
    end = _now(devices)
    layers = [layer for layer in output.past_key_values.layers if layer.is_initialized]
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    return first - start, end - first, cached


def _now(devices: set[torch.device]) -> float:
    """Wait until all GPU work is done, then read the clock (s)."""
    for device in devices:
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _sharing(model: PreTrainedModel) -> PreTrainedModel:
    """Copy the modules of a model. The copy shares all parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _check(model: PreTrainedModel, load: Load) -> None:
    tokens = load.prompt_tokens + load.new_tokens
    if tokens > context_length(model):
        raise UserError(
            f"inference: prompt_tokens {load.prompt_tokens} and new_tokens {load.new_tokens} are more than the model's "
            f"context of {context_length(model)} tokens; give fewer"
        )
    free, needed = _free_bytes(model), kv_cache_bytes_per_token(model) * load.cached_tokens
    for batch_size in load.batch_sizes:
        if free is not None and batch_size * needed > free:
            gib = 1024**3
            raise _too_large(
                batch_size, f"needs {batch_size * needed / gib:.1f} GiB of cache alone, {free / gib:.1f} GiB are free"
            )


def _free_bytes(model: PreTrainedModel) -> int | None:
    """Return the free memory of the devices that hold the model; None if the system does not report it."""
    devices = {parameter.device for parameter in model.parameters()}
    if all(device.type == "cuda" for device in devices):
        return sum(int(torch.cuda.mem_get_info(device)[0]) for device in devices)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return 1024 * kib


def _too_large(batch_size: int, why: str) -> UserError:
    return UserError(
        f"inference.batch_sizes: got {batch_size}, which {why}; give smaller batches, or fewer prompt_tokens and "
        "new_tokens"
    )
