"""Small studies for the tests of statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from espalier.statistics.correctness import Correctness, TaskDocuments

TYPES = {"task": "str", "doc_id": "int64", "choice": "int64", "gold": "bool", "loglikelihood": "float64"}


def samples(documents: Sequence[tuple[str, int, int, Sequence[float], Sequence[int]]]) -> pd.DataFrame:
    """Make a samples table from (task, doc_id, gold choice, log-likelihoods, numbers of characters)."""
    rows = [
        {
            "task": task, "doc_id": doc_id, "choice": choice, "gold": choice == gold, "loglikelihood": float(score),
            "is_greedy": False, "n_chars": length, "n_bytes": length,
        }
        for task, doc_id, gold, scores, lengths in documents
        for choice, (score, length) in enumerate(zip(scores, lengths, strict=True))
    ]  # fmt: skip
    return pd.DataFrame(rows).astype(TYPES)


def study(tasks: Mapping[str, Any], names: Sequence[str] | None = None) -> Correctness:
    """Make a study from matrices of correct answers, (n_experiments, n_documents) for each task."""
    matrices = {task: np.asarray(matrix, dtype=np.bool_) for task, matrix in tasks.items()}
    n_experiments = len(next(iter(matrices.values())))
    weight = 1 / len(matrices)
    parts = tuple(TaskDocuments(task, weight, matrix) for task, matrix in matrices.items())
    return Correctness(tuple(names or (f"x{k}" for k in range(n_experiments))), parts, "test")
