"""Margin of the full grid's simultaneous set (`espalier.statistics.confidence_set`), from some of its documents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from espalier.statistics.validation import BoolArray, FloatArray, IntArray

SET_LEVEL = 0.95
"""Level of the simultaneous set that a race keeps."""
_MARGIN_Z = 4.0
_SET_DRAWS, _SET_SEED = 4_000, 0


def set_margin(weight: FloatArray, n_documents: IntArray, answers: Sequence[BoolArray]) -> float:
    """Return an upper bound of the critical value of the full grid's simultaneous set.

    The critical value is the 95th percentile of the range (largest minus smallest) of the errors of all experiments,
    with the covariance of a bootstrap over all documents. It is proportional to the root of V, the mean variance of a
    difference between two experiments. V is a mean over documents, so its standard error is known, and the bound is
    `_MARGIN_Z` standard errors above.

    Each incomplete task counts one more document on which every two experiments disagree: a few documents without
    disagreement do not show that there is none, and would give a margin of 0.

    Args:
        weight: Weight of each task, (n_tasks,).
        n_documents: Documents of each task on the full grid, (n_tasks,).
        answers: For each task, whether each experiment answered each of some documents correctly, (k, n_seen).
    """
    k = len(answers[0])
    if k < 2:
        return 0.0
    scale = weight**2 / n_documents
    covariance = []
    spread = variance = 0.0
    for factor, new, n in zip(scale, answers, n_documents, strict=True):
        n_seen = new.shape[1]
        # One document shows no variation.
        joint = np.cov(new.astype(np.float64)) if n_seen > 1 else np.zeros((k, k))
        disagreement = new.var(axis=0, ddof=1)  # of each document: half the mean squared difference of two experiments
        if n_seen < n:
            joint = joint + np.eye(k) / (2 * n_seen)
            disagreement = np.append(disagreement, 0.5)
            variance += factor**2 * disagreement.var(ddof=1) * (1 / n_seen - 1 / n)
        covariance.append(joint)
        spread += factor * disagreement.sum() / n_seen
    values, vectors = np.linalg.eigh(np.tensordot(scale, np.array(covariance), axes=1))
    normal = np.random.default_rng(_SET_SEED).standard_normal((_SET_DRAWS, k))
    errors = normal @ (vectors * np.sqrt(np.maximum(values, 0))).T
    critical = float(np.quantile(errors.max(axis=1) - errors.min(axis=1), SET_LEVEL))
    return critical * (1 + _MARGIN_Z * math.sqrt(variance) / (2 * float(spread))) if spread > 0 else critical
