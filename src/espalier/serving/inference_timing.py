"""Measure the prefill and decode times of a model and of its pruned versions in one process.

Each repeat runs every version once, in a new random order. Disturbances of the machine and after-effects of the
previous run then affect all versions alike. Generation is greedy and uses the forward pass and KV cache of
transformers, without a serving engine. The comparison therefore shows the effect of the weight shapes only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.models.architecture import LAYERS
from espalier.models.context import context_length
from espalier.models.decoder import head_dim, n_kv_groups
from espalier.models.kept_experts import KeptExperts
from espalier.models.padding import has_groups, pad_widths
from espalier.models.surgery import copy_sharing_tensors, prune
from espalier.progress import Progress
from espalier.serving.inference_summary import PADDED, PRUNED, UNPRUNED, TimedRun, Workload

WARM_UP_TOKENS = 4
_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")


class GenerationTimes(NamedTuple):
    """Measurements of one generation.

    Attributes:
        prefill_s: Time to process the prompts and produce the first token of each.
        decode_s: Time to generate the remaining tokens.
        cache_bytes: Size of the tensors in the KV cache at the end.
    """

    prefill_s: float
    decode_s: float
    cache_bytes: int


def versions_of(
    model: PreTrainedModel,
    kept_kv_groups: Sequence[Sequence[int]],
    kept_mlp_channels: Sequence[Sequence[int]],
    removed_layers: Sequence[int] = (),
    kept_experts: Mapping[int, KeptExperts] | None = None,
    *,
    multiple: int,
) -> dict[str, PreTrainedModel]:
    """Return the model, its pruned version, and the pruned version with MLP widths padded to a multiple.

    The versions share all tensors that pruning or padding does not change.

    Args:
        model: The unpruned model; it is not modified.
        kept_kv_groups: For each layer, the KV groups to keep, in increasing order.
        kept_mlp_channels: For each layer, the MLP channels to keep, in increasing order.
        removed_layers: The layers to remove whole, in increasing order.
        kept_experts: What layers keep of their experts (`espalier.models.surgery.prune`).
        multiple: Number that the padded MLP widths are multiples of.

    Returns:
        Models by version name: `unpruned`, `pruned` and `padded`. `padded` is absent if all widths are multiples
        already.

    Raises:
        UserError: If the plan does not fit the model.
    """
    versions = {UNPRUNED: model, PRUNED: copy_sharing_tensors(model)}
    prune(versions[PRUNED], kept_kv_groups, kept_mlp_channels, removed_layers, kept_experts)
    padded = copy_sharing_tensors(versions[PRUNED])
    if pad_widths(padded, multiple):
        versions[PADDED] = padded
    return versions


def measure(versions: Mapping[str, PreTrainedModel], workload: Workload) -> list[TimedRun]:
    """Run every version at every batch size, `workload.repeats` times each, after one warm-up run.

    Args:
        versions: Versions of one model by name.
        workload: Workload of the measurement.

    Raises:
        UserError: If prompt and generated tokens exceed the context length, or if a batch does not fit into memory.
    """
    names, model = list(versions), next(iter(versions.values()))
    _check_workload(model, workload)
    generator = torch.Generator().manual_seed(0)  # of the prompts, and of the order of the versions
    runs: list[TimedRun] = []
    total = len(workload.batch_sizes) * (workload.repeats + 1) * len(versions)
    with Progress("measuring", total=total, unit="runs") as progress, torch.inference_mode():
        for batch_size in workload.batch_sizes:
            shape = (batch_size, workload.prompt_tokens)
            prompts = torch.randint(0, model.config.vocab_size, shape, generator=generator).to(model.device)
            for repeat in range(-1, workload.repeats):  # -1 warms up
                for name in [names[index] for index in torch.randperm(len(names), generator=generator)]:
                    run = _timed_run(versions[name], prompts, workload, repeat, name)
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


def _timed_run(model: PreTrainedModel, prompts: torch.Tensor, workload: Workload, repeat: int, name: str) -> TimedRun:
    new_tokens = workload.new_tokens if repeat >= 0 else min(workload.new_tokens, WARM_UP_TOKENS)
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    before = {device: torch.cuda.memory_allocated(device) for device in devices}
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        times = _timed_generation(model, prompts, new_tokens, devices)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS):
            raise
        raise _batch_too_large(len(prompts), "ran out of memory") from None
    peak = sum(torch.cuda.max_memory_allocated(device) - before[device] for device in devices) if devices else None
    return TimedRun(len(prompts), repeat, name, *times, beyond_weights_bytes=peak)


def _timed_generation(
    model: PreTrainedModel, prompts: torch.Tensor, new_tokens: int, devices: set[torch.device]
) -> GenerationTimes:
    start = _synchronised_time(devices)
    output = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
    token = output.logits[:, -1].argmax(-1, keepdim=True)  # (batch, 1)
    first = _synchronised_time(devices)
    for _ in range(new_tokens - 1):
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1].argmax(-1, keepdim=True)
    end = _synchronised_time(devices)
    layers = [layer for layer in output.past_key_values.layers if layer.is_initialized]
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    return GenerationTimes(first - start, end - first, cached)


def _synchronised_time(devices: set[torch.device]) -> float:
    """Wait until all GPU work is done, then read the clock (s)."""
    for device in devices:
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _check_workload(model: PreTrainedModel, workload: Workload) -> None:
    tokens = workload.prompt_tokens + workload.new_tokens
    if tokens > context_length(model):
        raise UserError(
            f"inference: prompt_tokens {workload.prompt_tokens} and new_tokens {workload.new_tokens} are more than the "
            f"model's context of {context_length(model)} tokens; give fewer"
        )
    free, needed = _available_bytes(model), kv_cache_bytes_per_token(model) * workload.cached_tokens
    for batch_size in workload.batch_sizes:
        if free is not None and batch_size * needed > free:
            gib = 1024**3
            raise _batch_too_large(
                batch_size, f"needs {batch_size * needed / gib:.1f} GiB of cache alone, {free / gib:.1f} GiB are free"
            )


def _available_bytes(model: PreTrainedModel) -> int | None:
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


def _batch_too_large(batch_size: int, why: str) -> UserError:
    return UserError(
        f"inference.batch_sizes: got {batch_size}, which {why}; give smaller batches, or fewer prompt_tokens and "
        "new_tokens"
    )
