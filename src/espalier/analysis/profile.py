"""Size of the calibration gradient in each layer of a model, for every calibration setting that was run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from espalier.calibration.gradient_statistics import moments_of, pool

Setting = tuple[str, int, int]


def settings_of(experiments: pd.DataFrame, model: str) -> list[Setting]:
    """List the calibration settings of a model: calibration set, sequence length, number of samples."""
    columns = ["calibration", "taylor_seq_len", "taylor_num_samples"]
    if not set(columns) <= set(experiments):
        return []
    rows = experiments.loc[experiments["model"] == model, columns].dropna().drop_duplicates().sort_values(columns)
    return [(str(name), int(length), int(count)) for name, length, count in rows.itertuples(index=False)]


def gradient_profile(settings: Iterable[tuple[Setting, pd.DataFrame]]) -> list[dict[str, Any]]:
    """Pool the gradient statistics of each layer over its projections.

    Args:
        settings: Each calibration setting, with the gradients table of its gradient pass.

    Returns:
        An entry for each setting with rows in its table: `calibration`, `taylor_seq_len`, `taylor_num_samples`, and the
        lists `grad_mean` and `grad_norm` with a value for each layer.
    """
    found = []
    for (calibration, length, count), table in settings:
        rows = table[table["n_samples"] == count]
        layers = [
            pool(moments_of(row) for row in one.to_dict("records")).statistics()
            for _, one in rows.groupby("layer", sort=True)
        ]
        if layers:
            found.append(
                {
                    "calibration": calibration,
                    "taylor_seq_len": length,
                    "taylor_num_samples": count,
                    "grad_mean": [float(layer["grad_mean"]) for layer in layers],
                    "grad_norm": [float(layer["grad_norm"]) for layer in layers],
                }
            )
    return found
