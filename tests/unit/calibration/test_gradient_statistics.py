"""Gradient statistics against hand-worked cases."""

import math

import numpy as np
import pytest

from espalier.calibration.gradient_statistics import Moments, model_metrics, moments_of, pool


def test_pooled_statistics_are_those_of_all_values_together() -> None:
    first, second = np.array([1.0, -3.0, 2.0]), np.array([0.5, -0.25])
    parts = [Moments(len(g), float(abs(g).sum()), float((g**2).sum()), float(abs(g).max())) for g in (first, second)]
    both = abs(np.concatenate([first, second]))
    pooled = pool(parts).statistics()
    expected = {
        "n_params": 5, "grad_mean": both.mean(), "grad_std": both.std(), "grad_norm": math.sqrt((both**2).sum()),
        "grad_max": 3.0,
    }  # fmt: skip
    assert pooled == pytest.approx(expected)
    assert pool([moments_of(part.statistics()) for part in parts]).statistics() == pytest.approx(expected)


def test_model_metrics_by_hand() -> None:
    layers = [
        {"grad_mean": 0.0, "grad_norm": 1.0, "grad_std": 2.0, "grad_max": 0.0},
        {"grad_mean": 0.5, "grad_norm": 4.0, "grad_std": 3.0, "grad_max": 0.0},
        {"grad_mean": 2.0, "grad_norm": 2.0, "grad_std": 2.5, "grad_max": 0.0},
    ]
    assert model_metrics(layers) == {
        "grad_mean_ratio": 4.0,  # 2 / 0.5: the smallest non-zero one
        "grad_norm_ratio": 4.0,
        "grad_std_ratio": 1.5,
        "grad_max_ratio": None,  # 0 in every layer
        "grad_mean_range": 2.0,
        "grad_norm_range": 3.0,
    }
