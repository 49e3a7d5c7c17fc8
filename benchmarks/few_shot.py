"""Few-shot multiple choice: Espalier against lm-eval's `hf` backend, on synthetic documents of MMLU's sizes.

    PYTHONPATH=src python benchmarks/few_shot.py                        # tokens of all 57 tasks; a tiny model
    PYTHONPATH=src python benchmarks/few_shot.py --model FOLDER --tasks 2 --documents 20

The 57 tasks have as many documents as those of MMLU. Lengths are drawn: a question with its four choices has 20 to 300
tokens, about 90 on average, and 5 solved examples come before it. Tokens are random. The first lines count the tokens
that go through the model, which needs no model. Then both score some documents. Times are CPU seconds of the process,
which other programs on the machine disturb less than wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from espalier.scoring.engine import score_requests
from espalier.scoring.prefix import find_prefixes
from espalier.scoring.requests import Request
from espalier.scoring.tree import build_forest

SIZES = (
    100, 135, 152, 100, 265, 144, 100, 100, 100, 173, 102, 100, 235, 114, 145, 378, 126, 100, 310, 203, 100, 165, 198,
    193, 390, 270, 238, 151, 545, 216, 204, 237, 223, 131, 121, 108, 163, 112, 103, 234, 100, 783, 346, 895, 306, 311,
    324, 282, 1534, 272, 612, 110, 245, 201, 100, 166, 171,
)  # fmt: skip
"""Documents of the test split of each task of MMLU, 14,042 in all."""
N_EXAMPLES, N_CHOICES = 5, 4


def make_task(n_documents: int, rng: np.random.Generator, vocab_size: int) -> list[Request]:
    """Return the requests of one task: four for each document, whose continuations have one token."""

    def tokens() -> list[int]:
        n = int(np.clip(rng.lognormal(np.log(75), 0.6), 20, 300))
        drawn: list[int] = rng.integers(10, vocab_size, n).tolist()
        return drawn

    shown = [token for _ in range(N_EXAMPLES) for token in tokens()]
    documents = [[*shown, *tokens()] for _ in range(n_documents)]
    return [Request(document, [choice]) for document in documents for choice in range(N_CHOICES)]


def computed_tokens(requests: Sequence[Request], *, budget: int) -> tuple[int, int, int]:
    """Return the tokens that each way computes, without padding.

    Returns:
        lm-eval, which computes each document once for its four choices of one token; token trees without shared
        prefixes; Espalier.
    """
    trees = {"limit": 1 << 20, "width": 512, "widest": min(4096, budget)}
    lm_eval = sum(len(request.context) for request in requests[::N_CHOICES])
    plain = int(build_forest(requests, **trees).sizes.sum())
    groups = find_prefixes(requests, limit=1 << 20, widest=trees["widest"])
    own = sum(len(group.tokens) + int(build_forest(group.suffixes, **trees).sizes.sum()) for group in groups)
    grouped = {index for group in groups for index in group.requests.tolist()}
    rest = [request for index, request in enumerate(requests) if index not in grouped]
    return lm_eval, plain, own + (int(build_forest(rest, **trees).sizes.sum()) if rest else 0)


def cpu_seconds(run: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    """Print the tokens and times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a model; a tiny random Llama if left out")
    parser.add_argument("--tasks", type=int, default=4, help="tasks that are scored")
    parser.add_argument("--documents", type=int, default=100, help="most documents of each of them")
    parser.add_argument("--batch-size", type=int, default=8, help="batch size of lm-eval")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    tasks = [make_task(n, rng, 1000) for n in SIZES]
    everything = [request for task in tasks for request in task]
    lengths = [len(request.context) for request in everything[::N_CHOICES]]
    print(f"{len(lengths):,} documents in {len(SIZES)} tasks, {np.mean(lengths):.0f} tokens each with their examples")
    for device, budget in (("CPU", 2048), ("GPU", 16384)):
        lm_eval, plain, own = computed_tokens(everything, budget=budget)
        print(
            f"{device}: lm-eval {lm_eval:,} tokens; token trees alone {plain:,}; Espalier {own:,} "
            f"({lm_eval / own:.1f} times fewer than lm-eval)"
        )

    if options.model:
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(options.model)
    else:
        config = LlamaConfig(
            vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=4096,
        )  # fmt: skip
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        words = models.WordLevel({f"w{i}": i for i in range(1000)}, unk_token="w0")  # noqa: S106
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="w1", pad_token="w1")  # noqa: S106
    model = model.eval().to(options.device)
    some = [request for task in tasks[: options.tasks] for request in task[: N_CHOICES * options.documents]]
    n_documents = len(some) // N_CHOICES
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=options.batch_size, max_length=4096)
    pairs = [
        ((str(number // N_CHOICES), str(request.continuation)), list(request.context), list(request.continuation))
        for number, request in enumerate(some)
    ]
    score_requests(model, some[:8], token_budget=1024)
    found: dict[str, list[float]] = {}

    def ours() -> None:
        found["ours"] = [score.loglikelihood for score in score_requests(model, some, token_budget=16384)]

    def theirs() -> None:
        found["theirs"] = [value for value, _ in lm._loglikelihood_tokens(pairs, disable_tqdm=True)]  # noqa: SLF001

    seconds = {"lm-eval": cpu_seconds(theirs), "Espalier": cpu_seconds(ours)}
    difference = np.abs(np.array(found["ours"]) - np.array(found["theirs"])).max()
    for name, value in seconds.items():
        print(f"{name}: {value:.1f} CPU seconds for {n_documents} documents ({n_documents / value:.1f} per second)")
    print(f"{seconds['lm-eval'] / seconds['Espalier']:.1f} times; largest difference {difference:.1e} nats")


if __name__ == "__main__":
    main()
