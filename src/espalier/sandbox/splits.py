"""Names of the task files, without making any."""

from __future__ import annotations

from espalier.sandbox.tasks import TASKS

FEWSHOT_SPLIT = "train"


def splits(task: str) -> tuple[str, str]:
    """Return the splits of a task: the one that solved examples come from, and the one that is scored."""
    return FEWSHOT_SPLIT, TASKS[task].eval_split


def split_files() -> list[str]:
    """Return all task files, as `{task}/{split}.parquet`."""
    return [f"{task}/{split}.parquet" for task in TASKS for split in splits(task)]
