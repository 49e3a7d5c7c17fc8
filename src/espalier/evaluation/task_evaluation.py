"""Evaluation of a model on tasks, with the prompts, metrics and standard errors of lm-evaluation-harness."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lm_eval.utils
import pandas as pd
from lm_eval.api.task import Task
from lm_eval.evaluator import evaluate

from espalier.errors import UserError
from espalier.evaluation.language_model import AnsweredLM, EspalierLM, RequestEncoder
from espalier.evaluation.protocol import Protocol
from espalier.evaluation.tasks import Tasks
from espalier.evaluation.tokenised_requests import RequestKey
from espalier.scoring.requests import Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# lm-eval compiles its prompt templates again for each document. This takes longer than scoring with a small model.
lm_eval.utils.env.from_string = functools.cache(lm_eval.utils.env.from_string)

FEWSHOT_SEED = 1234  # lm-eval's default


@dataclass(frozen=True)
class ZeroShotResult:
    """Results of all tasks.

    Attributes:
        tasks: Results of each reported task or group, by its name: `metrics` with standard errors, `n_samples`
            (documents), `n_truncated` (documents truncated to the context), `n_encoded_apart` (continuations tokenised
            separately), `version`, `n_shot` and `limit`.
        samples: Table with one row per choice (`espalier.tables.Samples`).
    """

    tasks: dict[str, dict[str, Any]]
    samples: pd.DataFrame


def encode_tasks(
    tasks: Tasks, tokenizer: PreTrainedTokenizerBase, protocol: Protocol
) -> tuple[dict[RequestKey, Request], dict[str, int]]:
    """Tokenise every request of an evaluation.

    Args:
        tasks: Loaded tasks.
        tokenizer: Tokenizer of the model.
        protocol: Evaluation protocol.

    Returns:
        The requests, and by task the number of continuations that were tokenised separately from their context because
        one token would cover both. Tasks without such continuations are left out.

    Raises:
        UserError: If the continuation of a request has no tokens.
    """
    encoder = RequestEncoder(tokenizer, protocol.add_bos)
    _run_lm_eval(encoder, tasks, protocol)
    return encoder.encoded, dict(encoder.n_encoded_apart)


def evaluate_tasks(lm: EspalierLM, tasks: Tasks, protocol: Protocol) -> ZeroShotResult:
    """Evaluate a model on tasks.

    Args:
        lm: Model to evaluate.
        tasks: Loaded tasks.
        protocol: Evaluation protocol.

    Raises:
        UserError: As `EspalierLM.loglikelihood`, or if a document has fewer answers than choices.
    """
    results = _run_lm_eval(lm, tasks, protocol)
    summary = {name: _summarise(name, results, protocol, lm) for name in tasks.reported}
    rows = [row for name in results["samples"] for row in _sample_rows(tasks.leaves[name], results["samples"][name])]
    return ZeroShotResult(summary, pd.DataFrame(rows))


def evaluate_answers(lm: AnsweredLM, tasks: Tasks, protocol: Protocol) -> ZeroShotResult:
    """Compute the results of tasks from stored answers to some of their documents.

    Args:
        lm: The answers.
        tasks: Loaded tasks. None of them is a group that lm-eval aggregates.
        protocol: Evaluation protocol.

    Raises:
        UserError: As `evaluate_tasks`.
    """
    results = _run_lm_eval(lm, tasks, protocol, lm.documents)
    summary = {
        name: _summarise(name, results, protocol, lm) | {"n_samples": len(lm.documents[name])}
        for name in tasks.reported
    }
    rows = [row for name in results["samples"] for row in _sample_rows(tasks.leaves[name], results["samples"][name])]
    return ZeroShotResult(summary, pd.DataFrame(rows))


class _Documents(list[int]):
    """Numbers of documents. lm-eval looks up each document of a task in this list."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(numbers)
        self._set = frozenset(numbers)

    def __contains__(self, number: object) -> bool:
        return number in self._set


def _run_lm_eval(
    lm: RequestEncoder | EspalierLM | AnsweredLM, tasks: Tasks, protocol: Protocol,
    documents: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run lm-eval's `evaluate` on loaded tasks and return its results.

    lm-eval's `simple_evaluate` would also collect information about the machine, which takes seconds.

    Args:
        lm: Model that lm-eval asks.
        tasks: Loaded tasks.
        protocol: Evaluation protocol.
        documents: Numbers of the documents of each task, ascending; None for those of the protocol.
    """
    for task in tasks.leaves.values():
        if task.get_config("num_fewshot") != 0:  # lm-eval never overrides a task that sets 0
            task.set_config(key="num_fewshot", value=protocol.num_fewshot)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    results: dict[str, Any] = evaluate(
        lm,
        task_dict=tasks.loaded,
        limit=protocol.limit if documents is None else None,
        samples=None if documents is None else {task: _Documents(numbers) for task, numbers in documents.items()},
        apply_chat_template=protocol.chat_template,
        fewshot_as_multiturn=protocol.fewshot_as_multiturn,
        log_samples=True,
    )
    return results


def _summarise(name: str, results: dict[str, Any], protocol: Protocol, lm: EspalierLM | AnsweredLM) -> dict[str, Any]:
    """Return the results of one task or group. In keys such as `acc,none`, lm-eval's default filter is removed."""
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
        "n_encoded_apart": sum(lm.n_encoded_apart.get(leaf, 0) for leaf in leaves),
        "version": results["versions"].get(name),
        "n_shot": results["n-shot"].get(name, protocol.num_fewshot),
        "limit": protocol.limit,
    }


def _leaves(name: str, results: dict[str, Any]) -> Iterator[str]:
    """Yield the tasks that have documents: the task itself, or the tasks in a group."""
    if name in results["n-samples"]:
        yield name
        return
    for child in results.get("group_subtasks", {}).get(name, []):
        yield from _leaves(child, results)


def _number_or_none(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _sample_rows(task: Task, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per choice. `n_chars` is the length that lm-eval divides by for `acc_norm`.

    Raises:
        UserError: If a document has fewer answers than choices.
    """
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
