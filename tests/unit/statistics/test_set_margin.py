"""The margin of the simultaneous set, computed by hand for two experiments."""

import numpy as np
import pytest

from espalier.statistics import set_margin as module
from espalier.statistics.set_margin import set_margin


def test_margin_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two experiments, the range of the errors is the absolute error of their difference d: 1.96 deviations.

    Task a has weight 3/4 and 4 of 8 documents, of which d is 1, 0, 0, 1. Its sample variance is 1/3, and one more
    disagreement adds 1/4. Task b has weight 1/4 and both of its documents, d is 1, 0. Its sample variance is 1/2.
    """
    scale_a, scale_b = 0.75**2 / 8, 0.25**2 / 2
    answers = [np.array([[1, 1, 0, 1], [0, 1, 0, 0]], dtype=bool), np.array([[1, 0], [0, 0]], dtype=bool)]
    arguments = np.array([0.75, 0.25]), np.array([8, 2]), answers
    found = set_margin(*arguments)

    monkeypatch.setattr(module, "_MARGIN_Z", 0.0)
    critical = set_margin(*arguments)
    # 4,000 draws give the 95% point within a few per cent.
    assert critical == pytest.approx(1.96 * (scale_a * (1 / 3 + 1 / 4) + scale_b / 2) ** 0.5, rel=0.05)

    # d^2 / 2 is 1/2, 0, 0, 1/2 in task a, and 1/2 for the further document; 1/2, 0 in task b.
    mean = scale_a * 1.5 / 4 + scale_b * 0.5 / 2
    # The sample variance of the five values is 0.075. Task b is complete, so it has no error.
    error = scale_a * (0.075 * (1 / 4 - 1 / 8)) ** 0.5
    assert found / critical == pytest.approx(1 + 4 * error / (2 * mean), rel=1e-9)


def test_one_experiment_has_no_margin() -> None:
    assert set_margin(np.ones(1), np.array([8]), [np.ones((1, 4), dtype=bool)]) == 0
