"""Evaluate one model in memory: tasks, perplexity, and the files that hold the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from espalier.evaluation.language_model import EspalierLM
from espalier.evaluation.metrics import ACC_NORM_ELSE_ACC, mean_accuracy
from espalier.evaluation.perplexity import PerplexityResult, measure_perplexity
from espalier.evaluation.protocol import Protocol, TextProtocol
from espalier.evaluation.requests import TokenisedRequests
from espalier.evaluation.tasks import Tasks
from espalier.evaluation.timing import Stopwatch
from espalier.evaluation.zeroshot import evaluate_tasks
from espalier.files import sha256_of, write_result, write_table
from espalier.recipe import SAMPLES_SHA256
from espalier.scoring.requests import Tokens
from espalier.tables import Samples


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Tasks,
    requests: TokenisedRequests,
    protocol: Protocol,
    token_budget: int,
    stopwatch: Stopwatch,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Evaluate a model by a protocol.

    Returns:
        The content of `metrics.json` (without names and recipe), and the table of samples.

    Raises:
        UserError: If the model gives a log-likelihood that is not finite, or the window exceeds its context.
    """
    lm = EspalierLM(
        model, tokenizer, add_bos=protocol.add_bos, token_budget=token_budget, requests=requests, stopwatch=stopwatch
    )
    with stopwatch.part("requests"):  # lm-eval writes its prompts; the model class says when it scores
        zeroshot = evaluate_tasks(lm, tasks, protocol)
    with stopwatch.part("forward"):
        perplexity = {
            text.name: measure_perplexity(
                model,
                requests.texts[text.name],
                name=text.name,
                window=protocol.window,
                stride=protocol.stride,
                token_budget=token_budget,
                max_tokens=text.max_tokens,
                bos=protocol.bos,
                bos_token=tokenizer.bos_token_id,
            )
            for text in protocol.texts
        }
    metrics = {
        "tasks": zeroshot.tasks,
        "acc_mean": {
            "value": mean_accuracy(zeroshot.tasks, ACC_NORM_ELSE_ACC),
            "rule": ACC_NORM_ELSE_ACC,
            "n_tasks": len(zeroshot.tasks),
        },
        "perplexity": {
            text.name: _describe(perplexity[text.name], text, protocol, tokenizer, requests.texts[text.name])
            for text in protocol.texts
        },
        "protocol": protocol.to_dict(),
    }
    return metrics, zeroshot.samples


def _describe(
    result: PerplexityResult,
    text: TextProtocol,
    protocol: Protocol,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Tokens,
) -> dict[str, Any]:
    """Return what is stored of the perplexity of one text: the number, how it came about, and its windows."""
    own = "first" if begins_with_bos(tokenizer, tokens) else "none"
    bos = protocol.bos or own
    return {
        "value": result.value,
        "n_tokens": result.n_tokens,
        "window": protocol.window,
        "stride": protocol.stride,
        "max_tokens": text.max_tokens,
        "bos": bos,
        "begins_with_bos": bos != "none",
        "window_losses": result.window_losses.tolist(),
        "window_tokens": result.window_tokens.tolist(),
    }


def begins_with_bos(tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> bool:
    """Whether a text begins with BOS, by the tokenizer's own way or by `add_bos`."""
    return tokenizer.bos_token_id is not None and int(tokens[0]) == tokenizer.bos_token_id


def write_evaluation(
    metrics: dict[str, Any], samples: pd.DataFrame, *, metrics_path: str | Path, samples_path: str | Path
) -> None:
    """Write samples, then metrics with their checksum: metrics.json is there only when all is."""
    write_table(samples_path, Samples.validate(samples))
    write_result(metrics_path, {**metrics, SAMPLES_SHA256: sha256_of(samples_path)})
