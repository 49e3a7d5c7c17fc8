"""Zero-shot evaluation through lm-evaluation-harness: its tasks, metrics and standard errors, our model."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lm_eval.utils
import pandas as pd
from lm_eval.api.task import Task
from lm_eval.evaluator import evaluate
from transformers import PreTrainedTokenizerBase

from espalier.errors import UserError
from espalier.evaluation.language_model import EspalierLM, RequestEncoder
from espalier.evaluation.protocol import Protocol
from espalier.evaluation.requests import RequestKey
from espalier.evaluation.tasks import Tasks
from espalier.scoring import Request

# lm-eval compiles its prompt templates anew for each document, which takes longer than to score a small model.
lm_eval.utils.env.from_string = functools.cache(lm_eval.utils.env.from_string)

FEWSHOT_SEED = 1234  # lm-eval's default


@dataclass(frozen=True)
class ZeroShotResult:
    """Results of all tasks.

    Attributes:
        tasks: For each task or group: metrics with standard errors, number of documents, how many of them were cut
            at the left, how many continuations were encoded apart, version, few-shot examples.
        samples: One row per choice; see `espalier.tables.Samples`.
    """

    tasks: dict[str, dict[str, Any]]
    samples: pd.DataFrame


def encode_tasks(
    tasks: Tasks, tokenizer: PreTrainedTokenizerBase, protocol: Protocol
) -> tuple[dict[RequestKey, Request], dict[str, int]]:
    """Tokenise every request that an evaluation of these tasks makes.

    Returns:
        The requests, and for each task that has any, how many continuations were encoded apart from their context
        because one token spans both.
    """
    encoder = RequestEncoder(tokenizer, protocol.add_bos)
    _run(encoder, tasks, protocol)
    return encoder.encoded, dict(encoder.n_apart)


def evaluate_tasks(lm: EspalierLM, tasks: Tasks, protocol: Protocol) -> ZeroShotResult:
    """Evaluate a model on tasks."""
    results = _run(lm, tasks, protocol)
    summary = {name: _summarise(name, results, protocol, lm) for name in tasks.reported}
    rows = [row for name in results["samples"] for row in _sample_rows(tasks.leaves[name], results["samples"][name])]
    return ZeroShotResult(summary, pd.DataFrame(rows))


def _run(lm: RequestEncoder | EspalierLM, tasks: Tasks, protocol: Protocol) -> dict[str, Any]:
    """Do what lm-eval's `simple_evaluate` does with built tasks, without its look at the machine (seconds)."""
    for task in tasks.leaves.values():
        if task.get_config("num_fewshot") != 0:  # lm-eval never overrides a task that says 0
            task.set_config(key="num_fewshot", value=protocol.num_fewshot)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    results: dict[str, Any] = evaluate(
        lm,
        task_dict=tasks.loaded,
        limit=protocol.limit,
        apply_chat_template=protocol.chat_template,
        fewshot_as_multiturn=protocol.fewshot_as_multiturn,
        log_samples=True,
    )
    return results


def _summarise(name: str, results: dict[str, Any], protocol: Protocol, lm: EspalierLM) -> dict[str, Any]:
    """Gather one task's numbers; keys such as `acc,none` lose the name of lm-eval's default filter."""
    found = results["results"][name]
    values = {key.split(",", 1)[0]: value for key, value in found.items() if key.endswith(",none")}
    metrics = {
        metric: {"value": float(value), "stderr": _number_or_none(values.get(f"{metric}_stderr"))}
        for metric, value in values.items()
        if not metric.endswith("_stderr")
    }
    leaves = list(_leaves(name, results))
    return {
        "metrics": metrics,
        "n_samples": sum(int(results["n-samples"][leaf]["effective"]) for leaf in leaves),
        "n_truncated": sum(lm.n_truncated[leaf] for leaf in leaves),
        "n_encoded_apart": sum(lm.n_apart.get(leaf, 0) for leaf in leaves),
        "version": results["versions"].get(name),
        "n_shot": results["n-shot"].get(name, protocol.num_fewshot),
        "limit": protocol.limit,
    }


def _leaves(name: str, results: dict[str, Any]) -> Iterator[str]:
    """Yield the tasks with documents of their own: `name` itself, or those in the group."""
    if name in results["n-samples"]:
        yield name
        return
    for child in results.get("group_subtasks", {}).get(name, []):
        yield from _leaves(child, results)


def _number_or_none(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _sample_rows(task: Task, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make one row per choice; lengths are those that lm-eval divides by for acc_norm."""
    rows = []
    for sample in samples:
        choices = task.doc_to_choice(sample["doc"])
        gold = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
        right = {
            choices.index(g) if isinstance(g, str) else int(g) for g in (gold if isinstance(gold, list) else [gold])
        }
        answers = sample["filtered_resps"]
        if len(answers) < len(choices):
            raise UserError(
                f"task {task.task_name}, document {sample['doc_id']}: {len(answers)} answers for {len(choices)} choices"
            )
        rows += [
            {
                "task": task.task_name,
                "doc_id": int(sample["doc_id"]),
                "choice": index,
                "gold": index in right,
                "loglikelihood": float(loglikelihood),
                "is_greedy": bool(is_greedy),
                "n_chars": len(choice),
                "n_bytes": len(choice.encode()),
            }
            for index, (choice, (loglikelihood, is_greedy)) in enumerate(zip(choices, answers, strict=False))
        ]
    return rows
