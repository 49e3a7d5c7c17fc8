"""Evaluation of a model on tasks, with the prompts, metrics and standard errors of lm-evaluation-harness."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lm_eval.utils
import pandas as pd
from lm_eval.api.task import Task
from lm_eval.evaluator import evaluate
from lm_eval.evaluator_utils import get_sample_size

from espalier.errors import UserError
from espalier.evaluation.generation import Prompt
from espalier.evaluation.language_model import AnsweredLM, EspalierLM, GeneratedLM, RequestEncoder, request_key
from espalier.evaluation.protocol import Protocol
from espalier.evaluation.task_rules import right_choices
from espalier.evaluation.tasks import Tasks
from espalier.evaluation.tokenised_requests import RequestKey
from espalier.evaluation.too_long import leave_out_too_long
from espalier.scoring.requests import Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# lm-eval compiles its prompt templates again for each document. This takes longer than scoring with a small model.
lm_eval.utils.env.from_string = functools.cache(lm_eval.utils.env.from_string)

FEWSHOT_SEED = 1234  # lm-eval's default


@dataclass(frozen=True)
class MultipleChoiceResult:
    """Results of all multiple-choice tasks.

    Attributes:
        tasks: Results of each reported task or group, by its name: `metrics` with standard errors, `n_samples`
            (documents), `n_truncated` (documents truncated to the context), `n_encoded_apart` (continuations tokenised
            separately), `version`, `n_shot` and `limit`. If too long documents are skipped, also `n_skipped`.
        samples: Table with one row per choice (`espalier.tables.Samples`).
    """

    tasks: dict[str, dict[str, Any]]
    samples: pd.DataFrame


@dataclass(frozen=True)
class GenerativeResult:
    """Results of all generative tasks.

    Attributes:
        tasks: Results of each reported task or group, as in `MultipleChoiceResult`. The filter that reads the answer is
            part of the name of a metric, such as `exact_match,strict-match`.
        answers: Table with one row per document and filter (`espalier.tables.Generations`).
    """

    tasks: dict[str, dict[str, Any]]
    answers: pd.DataFrame


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


def evaluate_tasks(lm: EspalierLM, tasks: Tasks, protocol: Protocol) -> MultipleChoiceResult:
    """Evaluate a model on multiple-choice tasks.

    Args:
        lm: Model to evaluate.
        tasks: Loaded tasks.
        protocol: Evaluation protocol.

    Raises:
        UserError: As `EspalierLM.loglikelihood`, or if a document has fewer answers than choices.
    """
    results = _run_lm_eval(lm, tasks, protocol)
    summary = {name: _summarise(name, results, protocol, lm) for name in tasks.reported}
    return MultipleChoiceResult(summary, _samples_table(tasks, results["samples"]))


def evaluate_answers(
    lm: AnsweredLM, tasks: Tasks, protocol: Protocol, skipped: Mapping[str, int] | None = None
) -> MultipleChoiceResult:
    """Compute the results of multiple-choice tasks from stored answers to some of their documents.

    Args:
        lm: The answers.
        tasks: Loaded tasks.
        protocol: Evaluation protocol.
        skipped: Skipped documents of each task; None if too long documents are truncated.

    Raises:
        UserError: As `evaluate_tasks`.
    """
    results = _run_lm_eval(lm, tasks, protocol, lm.documents)
    summary = {name: _summarise(name, results, protocol, lm, skipped) for name in tasks.reported}
    for name, content in summary.items():
        content["n_samples"] = sum(len(lm.documents[leaf]) for leaf in _leaves(name, results))
    return MultipleChoiceResult(summary, _samples_table(tasks, results["samples"]))


def evaluate_generation(lm: EspalierLM, tasks: Tasks, protocol: Protocol) -> GenerativeResult:
    """Evaluate a model on generative tasks.

    Args:
        lm: Model to evaluate.
        tasks: Loaded generative tasks.
        protocol: Evaluation protocol.

    Raises:
        UserError: As `EspalierLM.generate_until`, or if all documents of a task are too long and would be skipped.
    """
    if protocol.too_long == "truncate":
        results = _run_lm_eval(lm, tasks, protocol)
        skipped = None
    else:
        answers, skipped = _answer_fitting(lm, tasks, protocol)
        known = GeneratedLM(answers, lm.tokenizer, protocol.add_bos)
        results = _run_lm_eval(known, tasks, protocol, known.documents)
    summary = {name: _summarise(name, results, protocol, lm, skipped, all_filters=True) for name in tasks.reported}
    rows = [row for name in results["samples"] for row in _answer_rows(name, results["samples"][name])]
    return GenerativeResult(summary, pd.DataFrame(rows))


def _answer_fitting(lm: EspalierLM, tasks: Tasks, protocol: Protocol) -> tuple[dict[RequestKey, str], dict[str, int]]:
    """Answer the documents whose prompt fits in the context with the longest answer.

    The prompts are those of all documents. A run of lm-eval on some documents may draw other solved examples.

    Returns:
        The answers, and the number of the other documents by task.
    """
    _set_fewshots(tasks, protocol)
    prompts: dict[RequestKey, Prompt] = {}
    for task in tasks.leaves.values():
        task.build_all_requests(
            limit=get_sample_size(task, protocol.limit),
            apply_chat_template=protocol.chat_template,
            fewshot_as_multiturn=protocol.fewshot_as_multiturn,
            chat_template=lm.apply_chat_template if protocol.chat_template else None,
            tokenizer_name=lm.tokenizer_name if protocol.chat_template else "",
        )
        prompts |= {request_key(instance): lm.generator.prompt(instance) for instance in task.instances}
    limit = lm.generator.limit
    fitting, n_skipped = leave_out_too_long(prompts, lambda prompt: prompt.is_truncated(limit))
    check_not_all_skipped(fitting, tasks.leaves, limit)
    answers = dict(zip(fitting, lm.generate(list(fitting), list(fitting.values())), strict=True))
    return answers, n_skipped


class _Documents(list[int]):
    """Numbers of documents. lm-eval looks up each document of a task in this list."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(numbers)
        self._set = frozenset(numbers)

    def __contains__(self, number: object) -> bool:
        return number in self._set


def _run_lm_eval(
    lm: RequestEncoder | EspalierLM | AnsweredLM | GeneratedLM, tasks: Tasks, protocol: Protocol,
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
    _set_fewshots(tasks, protocol)
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


def _set_fewshots(tasks: Tasks, protocol: Protocol) -> None:
    """Set the number of solved examples of each task, and the seed by which they are drawn."""
    for name, task in tasks.leaves.items():
        if task.get_config("num_fewshot") != 0:  # lm-eval never overrides a task that sets 0
            task.set_config(key="num_fewshot", value=tasks.fewshots.get(name, protocol.num_fewshot))
        task.set_fewshot_seed(seed=FEWSHOT_SEED)


def check_not_all_skipped(kept: Iterable[RequestKey], tasks: Iterable[str], limit: int) -> None:
    """Check that each task has documents that fit in the context.

    Args:
        kept: Keys of the requests of these documents.
        tasks: Names of the tasks with documents.
        limit: The model's context, in tokens.

    Raises:
        UserError: If a task has none.
    """
    fitting = {key.task for key in kept}
    if without := [task for task in tasks if task not in fitting]:
        raise UserError(
            f"evaluation.too_long: skip leaves no document of task {without[0]!r}, because all of them are longer than "
            f"the model's context of {limit} tokens; use truncate, or leave the task out"
        )


def _summarise(
    name: str, results: dict[str, Any], protocol: Protocol, lm: EspalierLM | AnsweredLM,
    skipped: Mapping[str, int] | None = None, *, all_filters: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return the results of one task or group. In keys such as `acc,none`, lm-eval's default filter is removed.

    Args:
        name: Name of the task or group.
        results: Results of lm-eval.
        protocol: Evaluation protocol.
        lm: Model that was evaluated.
        skipped: Skipped documents of each task with documents; None if too long documents are truncated.
        all_filters: Whether to keep the results of other filters, too.
    """
    found = results["results"][name]
    values: dict[tuple[str, str], Any] = {}
    for key, value in found.items():
        metric, _, filtered = key.partition(",")
        if filtered == "none" or (filtered and all_filters):
            values[metric, "" if filtered == "none" else f",{filtered}"] = value
    metrics = {
        f"{metric}{filtered}": {
            "value": float(value),
            "stderr": _number_or_none(values.get((f"{metric}_stderr", filtered))),
        }
        for (metric, filtered), value in values.items()
        if not metric.endswith("_stderr") and _number_or_none(value) is not None
    }
    leaves = list(_leaves(name, results))
    return {
        "metrics": metrics,
        "n_samples": sum(int(results["n-samples"][leaf]["effective"]) for leaf in leaves),
        "n_truncated": sum(lm.n_truncated[leaf] for leaf in leaves),
        "n_encoded_apart": sum(lm.n_encoded_apart.get(leaf, 0) for leaf in leaves),
        **({} if skipped is None else {"n_skipped": sum(skipped.get(leaf, 0) for leaf in leaves)}),
        "version": results["versions"].get(name),
        "n_shot": results["n-shot"].get(name, _shots_of_group(leaves, results, protocol)),
        "limit": protocol.limit,
    }


def _shots_of_group(leaves: Sequence[str], results: dict[str, Any], protocol: Protocol) -> int:
    """Return the largest number of solved examples of the tasks in a group. lm-eval gives none for the group."""
    return max((int(results["n-shot"].get(leaf, protocol.num_fewshot)) for leaf in leaves), default=0)


def _leaves(name: str, results: dict[str, Any]) -> Iterator[str]:
    """Yield the tasks that have documents: the task itself, or the tasks in a group."""
    if name in results["n-samples"]:
        yield name
        return
    for child in results.get("group_subtasks", {}).get(name, []):
        yield from _leaves(child, results)


def _number_or_none(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _answer_rows(task: str, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per document of a generative task and filter."""
    return [
        {
            "task": task,
            "doc_id": int(sample["doc_id"]),
            "filter": str(sample["filter"]),
            "answer": str(sample["resps"][0][0]),
            "extracted": str(sample["filtered_resps"][0]),
            "target": str(sample["target"]),
        }
        for sample in samples
    ]


def _samples_table(tasks: Tasks, samples: Mapping[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """Return the samples table of multiple-choice tasks. Without groups, it has no column `task_group`.

    Args:
        tasks: The tasks.
        samples: lm-eval's samples of each task with documents.
    """
    frame = pd.DataFrame([row for name in samples for row in _sample_rows(tasks.leaves[name], samples[name])])
    groups = {leaf: name for name in tasks.reported if name not in tasks.leaves for leaf in tasks.members(name)}
    return frame.assign(task_group=frame["task"].map(groups).astype(object)) if groups else frame


def _sample_rows(task: Task, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per choice. `n_chars` is the length that lm-eval divides by for `acc_norm`.

    Raises:
        UserError: If a document has fewer answers than choices.
    """
    rows = []
    for sample in samples:
        choices = task.doc_to_choice(sample["doc"])
        gold = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
        right = right_choices(gold, choices)
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
