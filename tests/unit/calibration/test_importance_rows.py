"""Rows of the importance table."""

import numpy as np

from espalier.calibration.importance import importance_rows


def test_rows_are_in_the_order_layer_block_group() -> None:
    importance = {
        (1, "mlp"): np.array([5.0]),
        (0, "mlp"): np.array([3.0, 4.0]),
        (1, "attention"): np.array([0.5]),
        (0, "attention"): np.array([1.0, 2.0]),
    }
    rows = importance_rows(importance, 8)
    assert rows["n_samples"].tolist() == [8] * 6
    assert rows["layer"].tolist() == [0, 0, 0, 0, 1, 1]
    assert rows["block"].tolist() == ["attention", "attention", "mlp", "mlp", "attention", "mlp"]
    assert rows["group"].tolist() == [0, 1, 0, 1, 0, 0]
    assert rows["importance"].tolist() == [1, 2, 3, 4, 0.5, 5]
