"""Speed of zero-shot evaluation compared with lm-eval's `hf` backend: one model, the same requests, one process.

    PYTHONPATH=src .venv/bin/python benchmarks/zeroshot.py --documents 400
    PYTHONPATH=src .venv/bin/python benchmarks/zeroshot.py --device cuda --documents 20465

On the CPU the model is a Llama with about 56 M parameters and a vocabulary of 32,000 tokens, in float32. On a GPU it
has the shape of Llama-3-8B, in bfloat16. The weights are random and made on the device.

Requests are random tokens. The numbers of documents are in the proportions of the seven real tasks, and the lengths are
about the same; `--documents` sets the total (the tasks have 20,465). A real model and its real requests, as the rule
`tokenize_requests` writes them, are measured with

    PYTHONPATH=src .venv/bin/python benchmarks/zeroshot.py --model FOLDER --requests results/S/requests/M.parquet

If lm-eval is not installed, a simple loop does the same as its backend: it sorts by length (longest first), encodes the
context again for each choice, pads, computes the log-softmax over all positions, and scores one-token choices of one
context together. If espalier uses oneDNN for matrix products, both backends run with both libraries. Each repeat runs
each setting once, in turn; reported times are medians. Prints Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from espalier.models.padding import pad_widths, width_multiple
from espalier.models.surgery import copy_sharing_tensors
from espalier.scoring.compiled import compile_layers
from espalier.scoring.engine import break_even_width, score_requests
from espalier.scoring.onednn import fast_linear
from espalier.scoring.pack import choose_batches, make_batches, padding
from espalier.scoring.requests import Request, Score
from espalier.scoring.tree import build_forest

COUNTS = {
    "boolq": 3270, "piqa": 1838, "hellaswag": 10042, "winogrande": 1267, "arc_easy": 2376, "arc_challenge": 1172,
    "openbookqa": 500,
}  # fmt: skip
# Context and continuation (median of the tokens, standard deviation of their logarithm each), and number of choices.
LENGTHS = {
    "boolq": (125, 0.5, 1, 0.0, 2), "piqa": (14, 0.5, 20, 0.6, 2), "hellaswag": (70, 0.35, 26, 0.4, 4),
    "winogrande": (19, 0.25, 6, 0.5, 2), "arc_easy": (28, 0.5, 4, 0.6, 4), "arc_challenge": (31, 0.5, 5, 0.7, 4),
    "openbookqa": (11, 0.5, 3, 0.6, 4),
}  # fmt: skip
CPU_SHAPE = {
    "vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 2048,
}  # fmt: skip
LLAMA_3_8B = {
    "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500_000.0,
}  # fmt: skip

Result = TypeVar("Result")
Settings = dict[tuple[str, int, int], Callable[[], list[Any]]]
"""Runs by backend, token budget (of the reference: batch size) and row width (0: as espalier chooses)."""


def draw_requests(n_documents: int, vocab_size: int, seed: int = 0) -> list[Request]:
    """Return the requests of random documents, in the proportions of the tasks. Documents share no prefix."""
    rng = np.random.default_rng(seed)
    requests = []
    for task, count in COUNTS.items():
        context_median, context_spread, median, spread, n_choices = LENGTHS[task]
        for _ in range(max(1, round(count * n_documents / sum(COUNTS.values())))):
            context = _draw(rng, context_median, context_spread, vocab_size)
            if task == "winogrande":  # the contexts differ in the name at their end; the continuation is the same
                ending = _draw(rng, median, spread, vocab_size)
                names = rng.integers(0, vocab_size, (n_choices, 2)).tolist()
                requests += [Request([*context, *name], ending) for name in names]
            else:
                requests += [Request(context, _draw(rng, median, spread, vocab_size)) for _ in range(n_choices)]
    return requests


def _draw(rng: np.random.Generator, median: float, spread: float, vocab_size: int) -> list[int]:
    length = min(900, max(1, round(rng.lognormal(math.log(median), spread))))
    return rng.integers(0, vocab_size, length).tolist()


def read_real_requests(path: str, n_documents: int) -> list[Request]:
    """Return the requests of documents at equal distances in each task, `n_documents` of all tasks together."""
    from espalier.evaluation.tokenised_requests import read_requests

    by_document: dict[str, dict[int, list[Request]]] = {}
    for key, request in read_requests(path).requests.items():
        by_document.setdefault(key.task, {}).setdefault(key.doc_id, []).append(request)
    total = sum(len(documents) for documents in by_document.values())
    chosen = []
    for documents in by_document.values():
        numbers = np.linspace(0, len(documents) - 1, max(1, round(len(documents) * n_documents / total)))
        chosen += [request for number in numbers.astype(int) for request in list(documents.values())[number]]
    return chosen


def make_model(device: str, layers: int | None, folder: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model of a folder, or a model with random weights, created on the device."""
    if folder:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).to(device).eval()
    shape = LLAMA_3_8B if device == "cuda" else CPU_SHAPE
    if layers:
        shape = {**shape, "num_hidden_layers": layers}
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(LlamaConfig(**shape), dtype=dtype).eval()


@torch.inference_mode()
def plain_backend(model: PreTrainedModel, requests: Sequence[Request], batch_size: int) -> list[tuple[float, bool]]:
    """Score requests as the `hf` backend does, for machines without lm-eval."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault((*request.context, *request.continuation[:-1]), []).append(i)
    answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
    for rows in _chunks(sorted(groups, key=lambda tokens: (-len(tokens), tokens)), batch_size):
        width = len(rows[0])
        batch = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
        log_probs = torch.log_softmax(model(batch).logits, dim=-1)
        for row, tokens in enumerate(rows):
            for i in groups[tokens]:
                target = torch.tensor(requests[i].continuation, device=model.device)
                own = log_probs[row, len(tokens) - len(target) : len(tokens)]
                answers[i] = (
                    float(own.gather(-1, target[:, None]).sum()),
                    bool((own.argmax(-1) == target).all()),
                )
    return answers


def _chunks(items: Sequence[tuple[int, ...]], size: int) -> Iterator[Sequence[tuple[int, ...]]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def reference(model: PreTrainedModel) -> tuple[str, Callable[[Sequence[Request], int], list[tuple[float, bool]]]]:
    """Return the name and the scoring function of lm-eval's backend, or of the simple loop without lm-eval."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return "plain loop (lm-eval is not installed)", lambda requests, size: plain_backend(model, requests, size)
    lm = HFLM(pretrained=model, tokenizer=_tokenizer(), device=str(model.device), batch_size=1)

    def run(requests: Sequence[Request], batch_size: int) -> list[tuple[float, bool]]:
        lm.batch_size_per_gpu = batch_size
        pairs = [(("", ""), list(request.context), list(request.continuation)) for request in requests]
        return lm._loglikelihood_tokens(pairs, disable_tqdm=True)  # noqa: SLF001 (scores token ids, without tokenising)

    return "lm-eval hf", run


def _tokenizer() -> object:
    """Return a tokenizer with one token. The backend requires a tokenizer, but does not use it for token ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<s>")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"<s>": 0})), **special)


@torch.inference_mode()
def matmul_rate(model: PreTrainedModel) -> float:
    """Measure the operations per second (two per multiply-add) of a large matrix product, with the faster library."""
    device, dtype = model.device.type, model.dtype
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    with fast_linear(model):
        return 2 * n**3 / statistics.median(_timed(lambda: linear(a, b), device)[0] for _ in range(5))


def _timed(run: Callable[[], Result], device: str) -> tuple[float, Result]:
    """Return how long a call takes (s), and its result."""
    start = time.perf_counter()
    result = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def describe_packing(
    model: PreTrainedModel, requests: Sequence[Request], budget: int, width: int
) -> tuple[int, float, float]:
    """Return the number of computed tokens, the fraction of padding, and the operations of the matrix products."""
    limit = model.config.max_position_embeddings
    forest = build_forest(requests, limit=limit, width=min(512, budget), widest=min(4096, budget))
    if width:
        batches = make_batches(forest, width=width, token_budget=budget)
    else:
        batches = choose_batches(forest, token_budget=budget, break_even=break_even_width(model.config))
    n_tokens = int(forest.sizes.sum())
    trees = np.repeat(np.arange(len(forest.is_chain)), np.diff(forest.first_scored))
    n_scored = len(np.unique(np.stack([trees, forest.node]), axis=1)[0])
    head = model.config.vocab_size * model.config.hidden_size
    in_layers = sum(p.numel() for p in model.get_decoder().layers.parameters())
    return n_tokens, padding(forest, batches), 2.0 * (in_layers * n_tokens + head * n_scored)


def run_all(arguments: argparse.Namespace) -> None:
    """Time each setting and print the table."""
    default = "bfloat16" if arguments.device == "cuda" else "float32"
    dtype = getattr(torch, arguments.dtype or default)
    model = make_model(arguments.device, arguments.layers, arguments.model, dtype)
    if arguments.ratio:
        prune_as_for_evaluation(model, arguments.ratio, pads=not arguments.ragged)
    if arguments.requests:
        requests = read_real_requests(arguments.requests, arguments.documents)
    else:
        requests = draw_requests(arguments.documents, model.config.vocab_size)
    name, run_reference = reference(model)
    ours = {"espalier": model} | ({"espalier, compiled": compiled_copy(model)} if arguments.compile else {})
    settings: Settings = {}
    for (label, own), budget, width in itertools.product(ours.items(), arguments.budgets, arguments.widths):
        settings[label, budget, width] = partial(
            score_requests, own, requests, token_budget=budget, width=width or None
        )
    for size in arguments.batch_sizes:
        settings[name, size, 0] = partial(run_reference, requests, size)
    if not isinstance(fast_linear(model), nullcontext):
        settings |= with_other_library(model, settings)
    first = {
        label: _timed(partial(score_requests, own, requests, token_budget=arguments.budgets[0]), arguments.device)[0]
        for label, own in ours.items()
    }
    run_reference(requests[:50], 8)
    times: dict[tuple[str, int, int], list[float]] = {key: [] for key in settings}
    answers: dict[tuple[str, int, int], list[Any]] = {}
    for _ in range(arguments.repeats):
        for key, run in settings.items():
            taken, answers[key] = _timed(run, arguments.device)
            times[key].append(taken)
    print_table(arguments, model, requests, name, times, answers)
    print("\nFirst run:", ", ".join(f"{label} {seconds:.1f} s" for label, seconds in first.items()))


def prune_as_for_evaluation(model: PreTrainedModel, ratio: float, *, pads: bool) -> None:
    """Remove a share of the parameters by random scores; if `pads`, pad the widths as an evaluation does."""
    from random_models import prune_at_random  # beside this file, and not found by a test that imports this file

    prune_at_random(model, ratio)
    if pads:
        pad_widths(model, width_multiple(model.device, model.dtype))


def compiled_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy that shares all weights and whose layers run through `torch.compile`."""
    copy = copy_sharing_tensors(model)
    compile_layers(copy)
    return copy


def with_other_library(model: PreTrainedModel, settings: Settings) -> Settings:
    """Return settings that run espalier with MKL and the reference with oneDNN."""

    def swapped(run: Callable[[], list[Any]], *, is_ours: bool) -> list[Any]:
        with torch.backends.mkldnn.flags(enabled=False) if is_ours else fast_linear(model):
            return run()

    found: Settings = {}
    for (backend, size, width), run in settings.items():
        is_ours = backend.startswith("espalier")
        key = (f"{backend}, {'MKL' if is_ours else 'oneDNN'}", size, width)
        found[key] = partial(swapped, run, is_ours=is_ours)
    return found


def print_table(
    arguments: argparse.Namespace,
    model: PreTrainedModel,
    requests: Sequence[Request],
    name: str,
    times: dict[tuple[str, int, int], list[float]],
    answers: dict[tuple[str, int, int], list[Score] | list[tuple[float, bool]]],
) -> None:
    """Print versions and one row per setting. Ratios compare with the best setting of the reference in each repeat."""
    best = min((key for key in times if key[0] == name), key=lambda key: statistics.median(times[key]))
    n_parameters = sum(p.numel() for p in model.parameters())
    n_request_tokens = sum(len(r.context) + len(r.continuation) - 1 for r in requests)
    rate = matmul_rate(model)
    print(_machine(arguments.device))
    print(
        f"{n_parameters / 1e6:.0f} M parameters, {str(model.dtype).removeprefix('torch.')}, {len(requests):,} requests "
        f"with {n_request_tokens:,} tokens; {arguments.repeats} repeats; matrix product {rate / 1e12:.2f} TFLOP/s\n"
    )
    print(
        "| backend | batch | time (s) | computed tokens/s | times faster than best reference | of the matmul rate "
        "| padding | largest difference |\n|---|---|---:|---:|---:|---:|---:|---:|"
    )
    expected = [answer[0] for answer in answers[best]]
    for key, seconds in times.items():
        backend, size, width = key
        median = statistics.median(seconds)
        ratio = statistics.median(b / s for b, s in zip(times[best], seconds, strict=True))
        difference = max(abs(a[0] - e) for a, e in zip(answers[key], expected, strict=True))
        if backend.startswith("espalier"):
            n_tokens, waste, operations = describe_packing(model, requests, size, width)
            cells = f"{n_tokens / median:,.0f} | {ratio:.2f} | {operations / median / rate:.0%} | {waste:.2%}"
            batch = f"{size:,} tokens, rows of {width}" if width else f"{size:,} tokens"
        else:
            cells, batch = f"{n_request_tokens / median:,.0f} | {ratio:.2f} | |", f"{size} requests"
        print(f"| {backend} | {batch} | {median:.1f} | {cells} | {difference:.1e} |")


def _machine(device: str) -> str:
    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "none"

    hardware = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    libraries = ", ".join(f"{p} {installed(p)}" for p in ("torch", "transformers", "lm-eval", "numpy"))
    return f"{hardware}, {platform.machine()}, Python {platform.python_version()}, {libraries}"


def main() -> None:
    """Read the arguments and run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--documents", type=int, default=400, help="documents of all tasks together (20465: all)")
    parser.add_argument("--budgets", type=int, nargs="+", help="token budgets of espalier")
    parser.add_argument("--widths", type=int, nargs="+", default=[0], help="row widths; 0: as espalier chooses")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="batch sizes of the reference")
    parser.add_argument("--model", help="folder of a real model")
    parser.add_argument("--requests", help="file of the model's tokenised requests")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--ratio", type=float, help="prune this share of the parameters, by random scores")
    parser.add_argument("--ragged", action="store_true", help="do not pad the MLP widths of the pruned model")
    parser.add_argument("--compile", action="store_true", help="run the layers of espalier through torch.compile")
    parser.add_argument("--layers", type=int, help="fewer layers, for small GPUs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    on_gpu = arguments.device == "cuda"
    arguments.budgets = arguments.budgets or ([8192, 16384, 32768] if on_gpu else [512, 1024, 2048])
    arguments.batch_sizes = arguments.batch_sizes or ([16, 32, 64, 128] if on_gpu else [4, 8, 16, 32])
    run_all(arguments)


if __name__ == "__main__":
    main()
