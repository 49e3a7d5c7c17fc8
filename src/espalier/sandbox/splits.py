"""Paths and splits of the sandbox's task files."""

from __future__ import annotations

from espalier.sandbox.tasks import TASKS

FEWSHOT_SPLIT = "train"


def splits(task: str) -> tuple[str, str]:
    """Return the two splits of a task: the split of the few-shot examples and the split that is scored."""
    return FEWSHOT_SPLIT, TASKS[task].eval_split


def sandbox_task_files() -> list[str]:
    """Return the relative paths of all task files: `{task}/{split}.parquet`."""
    return [f"{task}/{split}.parquet" for task in TASKS for split in splits(task)]
