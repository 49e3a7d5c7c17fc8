"""Compare the token ids and logits of a GGUF file in llama.cpp with the tokenizer and model that it was made from."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import logging
import math
import re
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from espalier.errors import UserError
from espalier.export.fresh_process import run_module
from espalier.export.gguf.llama_process import CANNOT_LOAD
from espalier.export.gguf.metadata import gguf_context_length
from espalier.export.gguf.reference import reference_logits
from espalier.export.gguf.source import Source
from espalier.export.gguf.texts import TEXTS, vocabulary_texts
from espalier.export.gguf.vocabulary import Vocabulary
from espalier.files import read_json

N_TOKENS, N_GENERATED = 200, 8
N_VOCABULARY_TEXTS = 500
OTHER_IDS_BOUND = 0.05
"""Largest allowed fraction of texts of random tokens with other ids. A wrong split or merge changes far more."""
F32_BOUND = 1e-3
"""Largest allowed logit difference of an F32 file, in units of the standard deviation of the logits (at least 1)."""
RELATIVE_BOUND = {"F16": 0.02, "Q8_0": 0.2}
"""Largest allowed root mean square of the logit differences of other types, in standard deviations of the logits.

docs/gguf.md has measured differences.
"""

REINSTALL = "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python"
MORE_MEMORY = "--set-resources export_gguf:mem_mb=16000"

logger = logging.getLogger(__name__)


class LlamaCppUnusableError(Exception):
    """llama.cpp cannot run on this machine. The file itself may be correct. The message has the reason and a remedy."""


def llama_cpp_version() -> str | None:
    """Return the version of llama-cpp-python, or None if it is not installed."""
    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return None


def check_file(
    path: Path, source: Source, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, gguf_type: str
) -> dict[str, Any]:
    """Load a file with llama.cpp and compare ids and logits, if llama.cpp runs on this machine.

    Returns:
        The `llama_cpp` section of the JSON file beside the GGUF file: `checked`, the numbers of compared texts and
        tokens, and the differences. If llama-cpp-python is not installed, cannot be loaded, or was built for another
        processor, `checked` is false and `reason` has the cause.

    Raises:
        UserError: If llama.cpp fails on the file, or its ids or logits differ too much.
    """
    version = llama_cpp_version()
    if version is None:
        return {"checked": False, "reason": "llama-cpp-python is not installed (requirements-llama.txt)"}
    drawn = vocabulary_texts(tokenizer, len(vocabulary.tokens), n_texts=N_VOCABULARY_TEXTS)
    texts = [*TEXTS, *drawn]
    expected = [tokenizer(text).input_ids for text in texts]
    n_tokens = min(N_TOKENS, gguf_context_length(source.config))
    prompt = list(itertools.islice(itertools.cycle(itertools.chain(*expected)), n_tokens - N_GENERATED))
    try:
        answer, logits = _ask(path, texts, prompt)
    except LlamaCppUnusableError as unusable:
        logger.warning("not checked with llama.cpp: %s", unusable)
        return {"checked": False, "llama-cpp-python": version, "reason": str(unusable)}
    n_other = _compare_ids(texts, expected, answer["ids"], tokenizer)
    ids = prompt + answer["generated"]
    differences = _compare_logits(torch.from_numpy(logits), reference_logits(source, ids), gguf_type)
    figures = ", ".join(f"{name} {value:.3g}" for name, value in differences.items())
    logger.info("checked with llama.cpp: ids of %d texts, logits of %d tokens: %s", len(texts), len(ids), figures)
    counts = {"n_texts": len(TEXTS), "n_texts_of_random_tokens": len(drawn), "n_of_them_with_other_ids": n_other}
    return {"checked": True, "llama-cpp-python": version, **counts, "n_tokens": len(ids), **differences}


def _ask(path: Path, texts: Sequence[str], prompt: Sequence[int]) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Run `espalier.export.gguf.llama_process` in a new process; return its answer and the logits.

    Raises:
        LlamaCppUnusableError: If llama.cpp cannot run on this machine.
        UserError: If llama.cpp fails on the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        request, answer, logits = (Path(folder) / name for name in ("request.json", "answer.json", "logits.npy"))
        content = {"file": str(path), "texts": texts, "prompt": prompt, "n_generated": N_GENERATED,
                   "threads": torch.get_num_threads(), "answer": str(answer), "logits": str(logits)}  # fmt: skip
        request.write_text(json.dumps(content), encoding="utf-8")
        done = run_module("espalier.export.gguf.llama_process", str(request))
        if done.returncode:
            raise _failure(path.name, done.returncode, done.stderr)
        return read_json(answer), np.load(logits, allow_pickle=False)


def _failure(name: str, status: int, stderr: str) -> Exception:
    """Return an error for an exit status of llama.cpp, with the signal, the relevant output line and a remedy.

    Args:
        name: Name of the GGUF file.
        status: Exit status of the process; -N if signal N killed it.
        stderr: Output of the process.
    """
    lines = stderr.strip().splitlines() or ["nothing"]
    reinstall = f"{REINSTALL}=={llama_cpp_version()}"
    if status == CANNOT_LOAD:
        return LlamaCppUnusableError(f"llama-cpp-python cannot be loaded ({lines[-1]}); install it again: {reinstall}")
    if status == -signal.SIGILL:
        return LlamaCppUnusableError(
            "llama.cpp was killed by SIGILL: llama-cpp-python was built for another processor; "
            f"build it for any processor: {reinstall}"
        )
    if status > 0:
        return UserError(f"{name}: llama.cpp failed on it with status {status} and said: {lines[-1]}")
    number = -status
    killer = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    # The cause comes before the stack trace: `ggml.c:12: GGML_ASSERT(x) failed` or `what():  std::bad_alloc`.
    cause = next((line.strip() for line in lines if re.match(r"\S+:\d+: |\s*what\(\):", line)), lines[-1])
    remedies: dict[int, str] = {
        signal.SIGKILL: f"most likely out of memory; give the job more, for example {MORE_MEMORY}",
        signal.SIGABRT: f"llama.cpp gave up on this file; it said: {cause}",
        signal.SIGSEGV: f"llama.cpp crashed on this file; report this with the model's config.json; it said: {cause}",
        signal.SIGFPE: "llama.cpp divided by zero on this file; report this with the model's config.json",
        signal.SIGBUS: "the file could not be read to its end; see whether the disk is full, then run again",
    }
    remedy = remedies.get(number, "it was ended from outside; run again")
    return UserError(f"{name}: llama.cpp was killed by {killer}: {remedy}")


def _compare_ids(
    texts: Sequence[str], expected: Sequence[list[int]], got: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase
) -> int:
    """Compare token ids; return the number of texts of random tokens whose ids differ.

    Args:
        texts: `TEXTS`, followed by texts of random tokens.
        expected: Ids from the tokenizer.
        got: Ids from llama.cpp.
        tokenizer: The tokenizer, for the message.

    Raises:
        UserError: If the ids of one of `TEXTS` differ, or those of more than `OTHER_IDS_BOUND` of the other texts.
    """
    wrong = [i for i, pair in enumerate(zip(expected, got, strict=True)) if pair[0] != pair[1]]
    n_other = sum(index >= len(TEXTS) for index in wrong)
    if not wrong:
        return 0
    ours, theirs = (ids[wrong[0]] for ids in (expected, got))
    at = next((i for i, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), -1)
    seen = (
        f"{tokenizer.convert_ids_to_tokens(theirs[at:][:3])} where the tokenizer makes "
        f"{tokenizer.convert_ids_to_tokens(ours[at:][:3])}"
    )
    if wrong[0] < len(TEXTS) or n_other > OTHER_IDS_BOUND * (len(texts) - len(TEXTS)):
        raise UserError(
            f"llama.cpp makes other ids of {len(wrong)} of {len(texts)} texts, of {texts[wrong[0]]!r} {seen}; "
            "export to transformers instead"
        )
    logger.warning("llama.cpp makes other ids of %d texts of random tokens, of %r %s", n_other, texts[wrong[0]], seen)
    return n_other


def _compare_logits(got: torch.Tensor, expected: torch.Tensor, gguf_type: str) -> dict[str, Any]:
    """Compare logits of shape (tokens, vocabulary); return the figures of the comparison.

    An F32 file must also have the same most probable token, unless the two largest logits are nearly equal.

    Raises:
        UserError: If the difference is larger than the bound for the type.
    """
    difference = (got - expected).abs()
    logit_std = (expected - expected.mean(-1, keepdim=True)).pow(2).mean().sqrt()
    largest = float(difference.max())
    relative = float(difference.pow(2).mean().sqrt() / logit_std)
    same = got.argmax(-1) == expected.argmax(-1)
    top = expected.topk(2).values
    decided = top[:, 0] - top[:, 1] > 2 * F32_BOUND * max(1.0, float(logit_std))
    figures = {
        "max_logit_difference": largest,
        "rms_logit_difference_in_std": relative,
        "same_argmax": float(same.float().mean()),
    }
    if gguf_type == "F32":
        bad = not largest <= F32_BOUND * max(1.0, float(logit_std)) or not bool(same[decided].all())
    else:
        bad = not relative <= RELATIVE_BOUND[gguf_type]
    if bad or not all(map(math.isfinite, figures.values())):
        raise UserError(
            f"llama.cpp computes other logits than the model: {figures}; the file was removed; report this with the "
            "model's config.json"
        )
    return figures
