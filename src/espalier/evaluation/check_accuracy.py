"""Check that the accuracy of a task follows from its documents as the statistics compute it.

Uncertainties, comparisons and races use which documents were answered correctly: those whose most probable choice
(`acc`), or most probable choice per character (`acc_norm`), is right (`espalier.statistics.correctness`). A task may
compute its accuracy by a rule of its own, such as the probability of all right choices (`truthfulqa_mc2`). Its accuracy
would then disagree with its documents, which is noticed only after all evaluations. So the rule is tried on some
documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from lm_eval.api.task import ConfigurableTask

from espalier.evaluation.task_rules import RULE_ERRORS, TaskDocument, right_choices

_ACCURACIES = ("acc", "acc_norm")
_DOCUMENTS = 20
"""Documents on which a rule is tried."""
_OUTCOMES = [0.0, 1.0, 1.0, 1.0]
"""Accuracies of single documents on which the aggregation is tried."""


def accuracy_problem(task: ConfigurableTask) -> str | None:
    """Return an error line if the accuracy of a multiple-choice task is not the share of correct documents, or None."""
    metrics = [metric for metric in _ACCURACIES if metric in task.aggregation()]
    reason = _aggregation_problem(task, metrics) or next(_rule_problems(task, metrics, task.task_docs), None)
    if reason is None:
        return None
    return (
        f"evaluation.tasks: {task.config.task!r} computes its accuracy by a rule of its own, not from the most "
        f"probable choice of each document ({reason}), so its documents cannot be compared; leave it out"
    )


def _aggregation_problem(task: ConfigurableTask, metrics: Iterable[str]) -> str | None:
    for metric in metrics:
        try:
            found = float(task.aggregation()[metric](_OUTCOMES))
        except (*RULE_ERRORS, ArithmeticError) as error:
            return f"{metric} of {_OUTCOMES} fails with {type(error).__name__}: {error}"
        if not math.isclose(found, sum(_OUTCOMES) / len(_OUTCOMES)):
            return f"{metric} of documents with {_OUTCOMES} is {found:.4g}"
    return None


def _rule_problems(task: ConfigurableTask, metrics: Iterable[str], documents: Iterable[TaskDocument]) -> Iterator[str]:
    """Yield how a rule differs from the most probable choice, with each choice in turn as the most probable one."""
    for number, document in enumerate(islice(documents, _DOCUMENTS)):
        choices = task.doc_to_choice(document)
        gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
        right = right_choices(gold, choices)
        for first in range(len(choices)):
            scores = [-10.0 - 3 * ((place - first) % len(choices)) for place in range(len(choices))]
            normalised = [score / max(len(choice), 1) for score, choice in zip(scores, choices, strict=True)]
            expected = {
                "acc": float(first in right), "acc_norm": float(normalised.index(max(normalised)) in right),
            }  # fmt: skip
            try:
                found = task.process_results(document, _answers(task, scores))
            except (*RULE_ERRORS, ArithmeticError) as error:
                yield f"document {number} fails with {type(error).__name__}: {error}"
                continue
            for metric in metrics:
                value = found.get(metric)
                if value != expected[metric]:
                    given = ", ".join(f"{score:g}" for score in scores)
                    yield (
                        f"{metric} of document {number} is {value} for log-likelihoods {given}, instead of "
                        f"{expected[metric]:g}"
                    )


def _answers(task: ConfigurableTask, scores: list[float]) -> list[tuple[float, bool]]:
    """Return answers as lm-eval passes them to a task; for `acc_mutual_info`, those without context follow."""
    answers: list[tuple[float, bool]] = [(score, False) for score in scores]
    metrics: Any = task.aggregation()
    return answers + ([(-20.0, False)] * len(scores) if "acc_mutual_info" in metrics else [])
