"""The mean accuracy over tasks, by a named rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.errors import UserError

ACC_NORM_ELSE_ACC = "acc_norm_else_acc"


def task_accuracy(metrics: Mapping[str, Any], rule: str) -> float:
    """Return the accuracy of a task that enters the mean.

    Args:
        metrics: `{metric: {"value": ..., "stderr": ...}}` of one task.
        rule: `acc_norm_else_acc` (acc_norm where the task defines it, else acc) or `acc`.

    Raises:
        UserError: If the task has no accuracy.
    """
    wanted = ("acc_norm", "acc") if rule == ACC_NORM_ELSE_ACC else ("acc",)
    for metric in wanted:
        if metric in metrics:
            return float(metrics[metric]["value"])
    raise UserError(f"a task has only the metrics {', '.join(metrics)}; the mean needs one of {', '.join(wanted)}")


def mean_accuracy(tasks: Mapping[str, Mapping[str, Any]], rule: str) -> float:
    """Return the unweighted mean over tasks."""
    values = [task_accuracy(task["metrics"], rule) for task in tasks.values()]
    return sum(values) / len(values)
