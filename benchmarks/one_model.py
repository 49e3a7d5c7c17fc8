"""Everything that a study does with one model, in one process, and the hours of a grid of 45 experiments from it.

    PYTHONPATH=src python benchmarks/one_model.py --shape sandbox                       a rehearsal on the CPU
    PYTHONPATH=src python benchmarks/one_model.py --shape llama-3-8b --device cuda      an 8B shape on a GPU
    PYTHONPATH=src python benchmarks/one_model.py --model FOLDER --device cuda          a real model, with its loading

Needs only torch, transformers and numpy. Evaluation is compared with lm-eval's `hf` where lm-eval is installed, and
else with a simple loop. Each line is printed as soon as it is measured, with the seconds since the start, and a
measurement that fails does not stop the others. Without `--model`, the weights are random and loading is not
measured.
"""

import argparse
import time
import traceback
from collections.abc import Callable
from functools import partial

import calibration
import torch
import zeroshot
from random_models import SHAPES, prune_at_random, random_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from espalier.calibration.gradients import sequence_losses
from espalier.calibration.importance import measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.calibration.priors import PER_LAYER, measure_priors
from espalier.calibration.sample_counts import n_prior_sequences, snapshot_counts
from espalier.models.decoder import decoder_layers
from espalier.models.padding import pad_widths, width_multiple
from espalier.models.surgery import copy_sharing_tensors
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request

N_EXPERIMENTS = 45
TASK_TOKENS = 2_656_000
"""Computed tokens of the 20,465 documents of the seven tasks (docs/benchmarks.md)."""
PRIOR_TOKENS = 16_384  # tokens per call of a layer
PADDED = "pruned 20%, padded"
PERPLEXITY_TOKENS = 1_400_000
"""Computed tokens of WikiText-2 and PTB at window 2,048 and stride 512."""


class Report:
    """Prints lines with the seconds since the start, and keeps the times that the estimate needs."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def line(self, what: str, measured: str, **seconds: float) -> None:
        """Print a line, and keep times (or speeds) by name."""
        self.seconds.update(seconds)
        print(f"| {time.perf_counter() - self._start:.0f} s | {what} | {measured} |", flush=True)

    def run(self, name: str, measure: Callable[[], None]) -> None:
        """Run a measurement; if it fails, print why and go on."""
        try:
            measure()
        except Exception:  # noqa: BLE001 (a failure must not cost the other measurements)
            self.line(name, f"FAILED: {traceback.format_exc(limit=-1).splitlines()[-1]}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main() -> None:
    options = parse_options()
    device = torch.device(options.device)
    report = Report()
    print(f"## {options.model or options.shape} on {calibration.describe(device)}, torch {torch.__version__}\n")
    print("| at | what | measured |\n|---|---|---|")
    model = load(options, device, torch.bfloat16 if device.type == "cuda" else torch.float32, report)
    rate = zeroshot.matmul_rate(model)
    report.line("matrix rate", f"{rate / 1e12:.2f} TFLOP/s")
    for length in options.lengths:
        measured = partial(measure_gradients, model, length, options, rate, report)
        report.run(f"gradients of {length} tokens", measured)
    report.run("priors", lambda: measure_prior_sweep(model, options, report))
    report.run("unpruned", lambda: measure_evaluation("unpruned", model, options, rate, report))
    for name, pads in ((PADDED, True), ("pruned 20%, widths as planned", False)):
        report.run(name, partial(measure_pruned, name, model, options, rate, report, pads=pads))
    print_estimate(report, options.lengths)


def measure_gradients(
    model: PreTrainedModel, length: int, options: argparse.Namespace, rate: float, report: Report
) -> None:
    rows = calibration.random_sequences(model, options.samples, length)
    counts = snapshot_counts(options.samples)
    seconds = calibration.seconds(model, lambda: measure_importance(model, rows, counts, settings=PassSettings()))
    share = calibration.pass_flops(model, options.samples, length) / seconds / rate
    report.line(
        f"gradients, {options.samples} x {length} tokens",
        f"{seconds:.2f} s, {share:.0%} of the matrix rate",
        **{f"gradients{length}": seconds},
    )


def measure_prior_sweep(model: PreTrainedModel, options: argparse.Namespace, report: Report) -> None:
    """Time the priors of the longest sequences, and compare with a whole run for each removal."""
    length = options.lengths[-1]
    rows = calibration.random_sequences(model, n_prior_sequences(options.samples), length)
    parts = rows.split(max(1, PRIOR_TOKENS // length))
    with torch.inference_mode():
        one = calibration.seconds(model, lambda: [sequence_losses(model, part.to(model.device)) for part in parts])
    whole = one * (1 + PER_LAYER * len(decoder_layers(model)))
    seconds = calibration.seconds(model, lambda: measure_priors(model, rows, token_budget=PRIOR_TOKENS))
    measured = f"{seconds:.2f} s, {seconds / whole:.2f} of whole runs"
    report.line(f"priors, {len(rows)} x {length} tokens", measured, priors=seconds)


def measure_evaluation(
    name: str, model: PreTrainedModel, options: argparse.Namespace, rate: float, report: Report
) -> None:
    """Time the evaluation of documents, and that of the reference at each of its batch sizes."""
    requests = zeroshot.draw_requests(options.documents, model.config.vocab_size)
    score_requests(model, requests[:40], token_budget=options.token_budget)
    ours = calibration.seconds(model, lambda: score_requests(model, requests, token_budget=options.token_budget))
    n_tokens, waste, operations = zeroshot.describe_packing(model, requests, options.token_budget, 0)
    speed = n_tokens / ours
    measured = f"{ours:.2f} s, {speed:,.0f} tokens/s, {operations / ours / rate:.0%} of the matrix rate"
    report.line(f"evaluation, {name}", f"{measured}, padding {waste:.1%}", **{name: speed})
    report.run(f"compiled layers, {name}", lambda: measure_compiled(name, model, requests, ours, options, report))
    backend, run = zeroshot.reference(model)
    run(requests[:40], 8)
    for size in options.batch_sizes:
        theirs = calibration.seconds(model, lambda n=size: run(requests, n))
        report.line(f"{backend}, {name}, batch {size}", f"{theirs:.2f} s, {theirs / ours:.2f} times ours")


def measure_compiled(
    name: str,
    model: PreTrainedModel,
    requests: list[Request],
    plain: float,
    options: argparse.Namespace,
    report: Report,
) -> None:
    """Time the same evaluation with layers through `torch.compile`, the first time and later."""
    compiled = zeroshot.compiled_copy(model)
    first, later = (
        calibration.seconds(model, lambda: score_requests(compiled, requests, token_budget=options.token_budget))
        for _ in range(2)
    )
    measured = f"{later:.2f} s, {plain / later:.2f} times as fast as plain layers; the first time {first:.1f} s"
    report.line(f"evaluation, {name}, compiled layers", measured)


def measure_pruned(
    name: str, model: PreTrainedModel, options: argparse.Namespace, rate: float, report: Report, *, pads: bool
) -> None:
    """Prune a copy of the model, and measure its evaluation."""
    measure_evaluation(name, pruned(model, pads=pads), options, rate, report)


def pruned(model: PreTrainedModel, *, pads: bool) -> PreTrainedModel:
    """Return a model pruned by 20%, with widths padded as for evaluation, or (on the CPU) to multiples of 8."""
    cut = copy_sharing_tensors(model)
    prune_at_random(cut, 0.2)
    if pads:
        pad_widths(cut, max(8, width_multiple(cut.device, cut.dtype)))
    return cut


def load(options: argparse.Namespace, device: torch.device, dtype: torch.dtype, report: Report) -> PreTrainedModel:
    start = time.perf_counter()
    if options.model:
        model = AutoModelForCausalLM.from_pretrained(
            options.model,
            dtype=dtype,
            local_files_only=True,
            device_map={"": device} if device.type == "cuda" else None,
        ).eval()
    else:
        model = random_model(options.shape, device, dtype)
    calibration.synchronise(model)
    seconds = time.perf_counter() - start
    what = "loading" if options.model else "making random weights"
    report.line(what, f"{seconds:.1f} s, {model.num_parameters():,} parameters", load=seconds if options.model else 0.0)
    return model


def print_estimate(report: Report, lengths: list[int]) -> None:
    """Print the hours of a grid, if all of its parts were measured."""
    seconds = report.seconds
    needed = ["load", "priors", "unpruned", PADDED, *(f"gradients{length}" for length in lengths)]
    if missing := [name for name in needed if name not in seconds]:
        print(f"\nNo estimate: {', '.join(missing)} could not be measured.")
        return
    tokens = TASK_TOKENS + PERPLEXITY_TOKENS
    # Priors take time in proportion to the tokens of their sequences.
    calibrating = sum(seconds[f"gradients{length}"] + seconds["priors"] * length / lengths[-1] for length in lengths)
    evaluating = tokens / seconds["unpruned"] + N_EXPERIMENTS * tokens / seconds[PADDED]
    total = 2 * seconds["load"] + calibrating + evaluating
    print(
        f"\n{N_EXPERIMENTS} experiments at this speed: {total / 3600:.2f} hours ({calibrating:.0f} s of passes and "
        f"priors, {evaluating:.0f} s of evaluation, two loads), without starting jobs, prompts and metrics."
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(SHAPES), default="sandbox")
    parser.add_argument("--model", help="folder of a real model, instead of a shape")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--lengths", type=int, nargs="+")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--documents", type=int)
    parser.add_argument("--token-budget", type=int)
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.lengths = options.lengths or ([16, 32, 64, 128, 256] if on_gpu else [16, 64])
    options.samples = options.samples or (512 if on_gpu else 16)
    options.documents = options.documents or (1500 if on_gpu else 30)
    options.token_budget = options.token_budget or (16_384 if on_gpu else 1024)
    options.batch_sizes = options.batch_sizes or ([32, 64] if on_gpu else [8])
    return options


if __name__ == "__main__":
    main()
