"""Time of gradient passes, priors, planning and surgery with random weights, compared with a simple implementation.

    PYTHONPATH=src python benchmarks/calibration.py                                   50 M parameters, on the CPU
    PYTHONPATH=src python benchmarks/calibration.py --shape sandbox
    PYTHONPATH=src python benchmarks/calibration.py --shape llama-3-8b --device cuda  budgets of an 8B model on a GPU
    PYTHONPATH=src python benchmarks/calibration.py --shape qwen2.5-7b --device cuda
    PYTHONPATH=src python benchmarks/calibration.py --shape llama-3-8b --device cuda --memory-gib 24

Needs only torch, transformers and numpy. The weights are random and made on the device, so times do not include
loading. The simple implementation runs one gradient pass for each experiment (method, length, count). For the priors it
runs the whole model once for each removal.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import transformers
from random_models import SHAPES, model_sizes, random_model
from transformers import PreTrainedModel

from espalier.calibration.gradients import sequence_losses
from espalier.calibration.importance import measure_importance
from espalier.calibration.pass_size import GIB, PassSettings
from espalier.calibration.priors import PER_LAYER, measure_priors
from espalier.calibration.sample_counts import n_prior_sequences, snapshot_counts
from espalier.models.decoder import decoder_layers, projections
from espalier.models.surgery import prune
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan
from espalier.planning.scores import PriorColumns, ScoreSettings, score_groups
from espalier.planning.select import SelectionOptions, select_groups

N_METHODS = 3  # number of methods in the reference grid


def main() -> None:
    options = parse_options()
    device = torch.device(options.device)
    if device.type == "cuda" and options.memory_gib:
        share = options.memory_gib * GIB / torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(share)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = random_model(options.shape, device, dtype)
    print(f"## {options.shape} on {describe(device)}\n")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {str(dtype).removeprefix('torch.')}, ")
    print(f"{model.num_parameters():,} parameters\n")
    print("| what | measured |\n|---|---|")
    settings = PassSettings(options.token_budget, options.layers_per_pass, options.checkpointing)
    benchmark_gradients(model, options.lengths, options.counts, settings, plain=device.type == "cpu")
    benchmark_priors(model, options.lengths[-1], options.counts[-1], options.prior_token_budget)
    benchmark_plan_and_surgery(model)


def benchmark_gradients(
    model: PreTrainedModel, lengths: list[int], counts: list[int], settings: PassSettings, *, plain: bool
) -> None:
    """Time one pass per length, with a snapshot for each count; if `plain`, also one pass per experiment."""
    rate = matmul_rate(model) if model.device.type == "cuda" else None
    one_pass_s = {}
    for length in lengths:
        sequences = random_sequences(model, counts[-1], length)
        reset_peak(model)
        steps = snapshot_counts(counts[-1], counts)
        one_pass_s[length] = seconds(model, partial(measure_importance, model, sequences, steps, settings=settings))
        line = f"{one_pass_s[length]:.2f} s"
        if rate:
            done = pass_flops(model, counts[-1], length)
            line += f", {done / one_pass_s[length] / rate:.0%} of the matmul rate, peak {peak_gib(model):.1f} GiB"
        report(f"gradient pass, {counts[-1]} sequences of {length} tokens", line)
    report(f"all {len(lengths)} lengths", f"{sum(one_pass_s.values()):.2f} s")
    if rate:
        report("measured matmul rate", f"{rate / 1e12:.0f} TFLOP/s")
    if plain:
        plain_s = sum(separate_pass_s(model, n, length, settings) for length in lengths for n in counts) * N_METHODS
        n_experiments = N_METHODS * len(lengths) * len(counts)
        report(
            f"{n_experiments} separate passes / {len(lengths)} passes",
            f"{plain_s:.2f} s / {sum(one_pass_s.values()):.2f} s = {plain_s / sum(one_pass_s.values()):.1f}",
        )


def separate_pass_s(model: PreTrainedModel, n_samples: int, length: int, settings: PassSettings) -> float:
    """Return the time of a pass for one experiment, with a single sample count."""
    sequences = random_sequences(model, n_samples, length)
    return seconds(model, lambda: measure_importance(model, sequences, [n_samples], settings=settings))


def benchmark_priors(model: PreTrainedModel, length: int, n_samples: int, token_budget: int) -> None:
    """Time the priors; compare with running the whole model once unpruned and once for each removal."""
    sequences = random_sequences(model, n_prior_sequences(n_samples), length)
    n_runs = 1 + PER_LAYER * len(decoder_layers(model))
    rows = max(1, token_budget // length)

    @torch.inference_mode()
    def whole_model() -> None:
        for batch in sequences.split(rows):
            sequence_losses(model, batch.to(model.device))

    whole_model()  # warm up
    whole_s = seconds(model, whole_model) * n_runs
    reset_peak(model)
    priors_s = seconds(model, lambda: measure_priors(model, sequences, token_budget=token_budget))
    peak = f", peak {peak_gib(model):.1f} GiB" if model.device.type == "cuda" else ""
    report(
        f"priors, {len(sequences)} sequences of {length} tokens",
        f"{priors_s:.2f} s; {n_runs} whole runs would take {whole_s:.2f} s: ratio {priors_s / whole_s:.2f}{peak}",
    )


def benchmark_plan_and_surgery(model: PreTrainedModel) -> None:
    """Time a plan at 20% from random importances and priors, and the pruning of the weights."""
    sizes = model_sizes(model)
    generator = np.random.default_rng(0)
    groups = GroupTable.of(sizes)
    importance = generator.lognormal(size=len(groups)) * groups.cost
    priors = PriorColumns(*generator.lognormal(size=(3, sizes.n_layers)))
    start = time.perf_counter()
    scores, _ = score_groups(groups, importance, ScoreSettings("block"), priors)
    removed = select_groups(groups, sizes, scores, 0.2, SelectionOptions())
    plan = Plan.from_mask(groups, sizes, removed)
    report(f"plan, {len(groups):,} groups", f"{time.perf_counter() - start:.3f} s")
    cut_s = seconds(model, lambda: prune(model, plan.kept_kv_groups, plan.kept_mlp_channels))
    report("surgery", f"{cut_s:.2f} s, {model.num_parameters():,} parameters left")


def pass_flops(model: PreTrainedModel, n_samples: int, length: int) -> int:
    """Return the operations of a gradient pass: 6 per projection weight and token, 4 per weight of the frozen head.

    Attention is not counted.
    """
    head = model.get_output_embeddings().weight.numel()
    return n_samples * length * (6 * sum(p.weight.numel() for p in projections(model)) + 4 * head)


def matmul_rate(model: PreTrainedModel) -> float:
    """Measure the operations per second of 8192 x 8192 matrix products in the model's dtype."""
    size, repeats = 8_192, 20
    a, b = (torch.randn(size, size, device=model.device, dtype=model.dtype) for _ in range(2))
    a @ b
    return 2 * size**3 * repeats / seconds(model, lambda: [a @ b for _ in range(repeats)])


def random_sequences(model: PreTrainedModel, n_samples: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(0, model.config.vocab_size, (n_samples, length), generator=generator)


def seconds(model: PreTrainedModel, work: Callable[[], object]) -> float:
    synchronise(model)
    start = time.perf_counter()
    work()
    synchronise(model)
    return time.perf_counter() - start


def synchronise(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def reset_peak(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib(model: PreTrainedModel) -> float:
    return torch.cuda.max_memory_allocated(model.device) / GIB


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def report(what: str, found: str) -> None:
    print(f"| {what} | {found} |", flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="50m")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--lengths", type=int, nargs="+", help="calibration lengths, ascending")
    parser.add_argument("--counts", type=int, nargs="+", help="sample counts, ascending")
    parser.add_argument("--token-budget", type=int, help="of a gradient pass; by default as Espalier chooses")
    parser.add_argument("--prior-token-budget", type=int, default=16_384)
    parser.add_argument("--layers-per-pass", type=int)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--memory-gib", type=float, help="pretend that the GPU has only so much memory")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.lengths = options.lengths or ([16, 32, 64, 128, 256] if on_gpu else [16, 32, 64])
    options.counts = options.counts or ([128, 256, 512] if on_gpu else [8, 16, 32])
    return options


if __name__ == "__main__":
    main()
