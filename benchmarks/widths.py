"""Speed of matrix products of pruned widths: which multiple of the MLP width, and which number of KV groups, is fast?

    PYTHONPATH=src python benchmarks/widths.py                                              SmolLM2-135M on the CPU
    PYTHONPATH=src python benchmarks/widths.py --dtype bfloat16
    PYTHONPATH=src python benchmarks/widths.py --device cuda --hidden 4096 --width 7337 --heads 8 --per-group 4
        --head-dim 128

Needs only torch, transformers and numpy. The first table has the rate of the up and down projections for the given
width and for the width rounded up to multiples. The rate counts the operations of the given width only, so padding is
faster only if its rate is higher. The second table has the time of an attention block for each number of KV groups, per
group. All candidates take turns, so that other work on the machine affects all of them. Medians over the rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

from espalier.models.pruned_blocks import resize_block
from espalier.scoring.onednn import fast_linear

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def main() -> None:
    options = parse_options()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype or default_dtype(options.device))
    torch.manual_seed(0)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"## {name}, torch {torch.__version__}, {str(dtype).removeprefix('torch.')}, {options.tokens} tokens\n")
    with torch.inference_mode(), fast_linear(FakeModel(device, dtype)):
        print_widths(options, device, dtype)
        print_heads(options, device, dtype)


class FakeModel:
    """Device and dtype of a model, which are all that `fast_linear` looks at."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype


def print_widths(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    """Print the rates of both projections by multiple."""
    widths = sorted({-(-options.width // multiple) * multiple for multiple in MULTIPLES})
    inputs = torch.randn(options.tokens, options.hidden, device=device, dtype=dtype)
    calls: dict[str, Callable[[], object]] = {}
    for width in widths:
        up = torch.randn(width, options.hidden, device=device, dtype=dtype)
        down = torch.randn(options.hidden, width, device=device, dtype=dtype)
        hidden = torch.randn(options.tokens, width, device=device, dtype=dtype)
        calls[f"up {width}"] = partial(nn.functional.linear, inputs, up)
        calls[f"down {width}"] = partial(nn.functional.linear, hidden, down)
    times = median_times(calls, device, options.rounds)
    operations = 2 * options.tokens * options.hidden * options.width
    print(f"| MLP width (of {options.width}) | multiple of | up, GFLOP/s | down, GFLOP/s |\n|---|---|---|---|")
    for width in widths:
        multiple = max(multiple for multiple in MULTIPLES if width % multiple == 0)
        rates = [operations / times[f"{name} {width}"] / 1e9 for name in ("up", "down")]
        print(f"| {width} | {multiple} | {rates[0]:,.0f} | {rates[1]:,.0f} |")


def print_heads(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    """Print the time of an attention block by number of KV groups."""
    config = LlamaConfig(
        hidden_size=options.hidden, num_attention_heads=options.heads * options.per_group,
        num_key_value_heads=options.heads, head_dim=options.head_dim, attn_implementation="sdpa",
    )  # fmt: skip
    rows = max(1, options.tokens // options.row)
    hidden = torch.randn(rows, options.row, options.hidden, device=device, dtype=dtype)
    with device:
        positions = LlamaRotaryEmbedding(config)(hidden, torch.arange(options.row, device=device)[None])
    causal = torch.ones(options.row, options.row, dtype=torch.bool, device=device).tril()
    mask = torch.zeros(causal.shape, dtype=dtype, device=device).masked_fill_(~causal, torch.finfo(dtype).min)
    mask = mask.expand(rows, 1, -1, -1)
    calls = {}
    for n_groups in range(1, options.heads + 1):
        with device:
            layer = nn.ModuleDict({"self_attn": LlamaAttention(config, 0).to(dtype)})
        if n_groups < options.heads:
            resize_block(layer, "attention", n_groups)
        attention = layer["self_attn"]
        calls[str(n_groups)] = lambda attention=attention: attention(
            hidden, position_embeddings=positions, attention_mask=mask
        )
    times = median_times(calls, device, options.rounds)
    print(f"\n| KV groups (of {options.heads}) | attention block, ms | per group, ms |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {1000 * seconds:.2f} | {1000 * seconds / int(name):.2f} |")


def median_times(calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, float]:
    """Run all calls in turn, and return the median time of each (s). The first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            synchronise(device)
            start = time.perf_counter()
            call()
            synchronise(device)
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def default_dtype(device: str) -> str:
    return "bfloat16" if device == "cuda" else "float32"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--hidden", type=int, default=576, help="hidden size")
    parser.add_argument("--width", type=int, default=1019, help="MLP width of a pruned layer")
    parser.add_argument("--heads", type=int, default=3, help="KV groups of an unpruned layer")
    parser.add_argument("--per-group", type=int, default=3, help="query heads of a KV group")
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of a batch")
    parser.add_argument("--row", type=int, default=256, help="tokens of a row of a batch, for attention")
    parser.add_argument("--rounds", type=int, default=30)
    return parser.parse_args()


if __name__ == "__main__":
    main()
