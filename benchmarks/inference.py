"""Speed and memory of pruned models at inference, with random weights, for several pruning ratios and MLP widths.

    PYTHONPATH=src python benchmarks/inference.py                                      58.5 M parameters, on the CPU
    PYTHONPATH=src python benchmarks/inference.py --shape sandbox
    PYTHONPATH=src python benchmarks/inference.py --shape llama-3-8b --device cuda     an 8B model on a GPU, bfloat16
    PYTHONPATH=src python benchmarks/inference.py --shape qwen2.5-7b --device cuda --batch-sizes 1 16 64

The planner makes the plans from random scores: for each ratio one with any width and one with multiples of 8. The
versions are measured as in the rule `measure_inference`: all in one process, in turn. Random scores remove about the
same fraction of MLP channels from each layer; a real plan does not. Prints Markdown.
"""

import argparse
import os
import platform

import numpy as np
import torch
import transformers
from random_models import SHAPES, model_sizes, random_model
from transformers import PreTrainedModel

from espalier.jobs.inference import sizes
from espalier.models.sizes import ModelSizes
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan
from espalier.planning.select import SelectionOptions, select_groups
from espalier.serving.inference_summary import SPEEDS, UNPRUNED, TimedRun, Workload, speed_gain, summarise_runs
from espalier.serving.inference_timing import measure, versions_of
from espalier.serving.verdict import RECOMMENDED_MULTIPLE


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = random_model(options.shape, device, dtype)
    workload = Workload(tuple(options.batch_sizes), options.prompt_tokens, options.new_tokens, options.repeats)
    versions = {UNPRUNED: model}
    for ratio in options.ratios:
        versions |= pruned_versions(model, ratio)
    print_header(options, model, workload)
    print_sizes(versions)
    runs = measure(versions, workload)
    print_speeds(runs, list(versions), workload)
    print_gains(runs, list(versions), workload)


def pruned_versions(model: PreTrainedModel, ratio: float) -> dict[str, PreTrainedModel]:
    """Prune by random scores: with any width, with those widths padded to multiples, and with planned multiples."""
    made = {}
    for multiple in (1, RECOMMENDED_MULTIPLE):
        plan = random_plan(model_sizes(model), ratio, multiple)
        found = versions_of(model, plan.kept_kv_groups, plan.kept_mlp_channels, multiple=RECOMMENDED_MULTIPLE)
        name = f"{ratio:.0%}, any width" if multiple == 1 else f"{ratio:.0%}, planned in multiples of {multiple}"
        made[name] = found["pruned"]
        if "padded" in found and multiple == 1:
            made[f"{ratio:.0%}, padded to multiples of {RECOMMENDED_MULTIPLE}"] = found["padded"]
    return made


def random_plan(sizes: ModelSizes, ratio: float, multiple: int) -> Plan:
    groups = GroupTable.of(sizes)
    scores = np.random.default_rng(0).lognormal(size=len(groups))
    removed = select_groups(groups, sizes, scores, ratio, SelectionOptions(mlp_multiple_of=multiple))
    return Plan.from_mask(groups, sizes, removed)


def print_header(options: argparse.Namespace, model: PreTrainedModel, workload: Workload) -> None:
    on_gpu = model.device.type == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}, {torch.get_num_threads()} CPU threads"
    print(f"## {options.shape} on {where}\n")
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {str(model.dtype).removeprefix('torch.')}"
    )
    print(
        f"prompts of {workload.prompt_tokens} tokens, {workload.new_tokens} new ones, {workload.repeats} repeats in "
        f"turn; load average before: {os.getloadavg()[0]:.1f}\n"
    )


def print_sizes(versions: dict[str, PreTrainedModel]) -> None:
    print("| version | parameters | weights (MB) | KV cache per token (bytes) |\n|---|---:|---:|---:|")
    for name, model in versions.items():
        one = sizes(model)
        megabytes = one["weights_bytes"] / 1e6
        print(f"| {name} | {one['n_params']:,} | {megabytes:,.1f} | {one['kv_cache_bytes_per_token']:,} |")
    print(flush=True)


def print_speeds(runs: list[TimedRun], versions: list[str], workload: Workload) -> None:
    print("| batch | version | prefill (tokens/s) | decode (tokens/s) | first token (s) | KV cache (MB) | peak (MB) |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for batch in summarise_runs(runs, versions, workload):
        for name, one in batch["versions"].items():
            cells = [spread(one[key], digits) for key, digits in (*((speed, 0) for speed in SPEEDS), (FIRST, 3))]
            peak = one["beyond_weights_bytes"]
            memory = [f"{one['cache_bytes'] / 1e6:.2f}", "" if peak is None else f"{peak / 1e6:.1f}"]
            print(f"| {batch['batch_size']} | {name} | {' | '.join([*cells, *memory])} |")
    print()


def print_gains(runs: list[TimedRun], versions: list[str], workload: Workload) -> None:
    """Print the speed of each version divided by that of the unpruned model in the same repeat."""
    print("| batch | version | prefill, times as fast as unpruned | decode, times as fast as unpruned |")
    print("|---:|---|---:|---:|")
    for size in workload.batch_sizes:
        here = [run for run in runs if run.batch_size == size]
        unpruned = [run for run in here if run.version == UNPRUNED]
        for name in versions[1:]:
            measured = [run for run in here if run.version == name]
            cells = []
            for seconds in ("prefill_s", "decode_s"):  # `speed_gain` pairs the repeats by their order
                speeds = ([1 / getattr(run, seconds) for run in of] for of in (measured, unpruned))
                gain = speed_gain(*speeds)
                low, high = gain.interval
                cells.append(f"{gain.ratio:.2f} ({low:.2f} to {high:.2f}), {OUTCOMES[gain.outcome]}")
            print(f"| {size} | {name} | {' | '.join(cells)} |")


FIRST = "time_to_first_token_s"
OUTCOMES = {"gain": "faster", "loss": "slower", "not_told": "not told apart"}


def spread(of: dict[str, float], digits: int) -> str:
    return f"{of['median']:,.{digits}f} ({of['min']:,.{digits}f}\N{EN DASH}{of['max']:,.{digits}f})"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="58m")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.2, 0.5])
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    parser.add_argument("--prompt-tokens", type=int)
    parser.add_argument("--new-tokens", type=int)
    parser.add_argument("--repeats", type=int, default=9, help="fewer than 6 have no 95%% interval")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="CPU threads")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.batch_sizes = options.batch_sizes or ([1, 8, 64] if on_gpu else [1, 8])
    longest = SHAPES[options.shape].max_position_embeddings // 2
    options.prompt_tokens = options.prompt_tokens or min(longest, 1_024 if on_gpu else 128)
    options.new_tokens = options.new_tokens or min(longest, 128 if on_gpu else 32)
    return options


if __name__ == "__main__":
    main()
