"""Size of the calibration gradient in each layer of a model, for every calibration setting that was run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from espalier.calibration.gradient_statistics import moments_of, pool


class CalibrationSetting(NamedTuple):
    """A calibration set, with the sequence length and the number of sequences that a gradient pass used."""

    calibration: str
    seq_len: int
    n_samples: int


def calibration_settings(experiments: pd.DataFrame, model: str) -> list[CalibrationSetting]:
    """List the calibration settings of the experiments of a model."""
    columns = ["calibration", "taylor_seq_len", "taylor_num_samples"]
    if not set(columns) <= set(experiments):
        return []
    rows = experiments.loc[experiments["model"] == model, columns].dropna().drop_duplicates().sort_values(columns)
    return [CalibrationSetting(str(name), int(length), int(n)) for name, length, n in rows.itertuples(index=False)]


def profile_gradients(settings: Iterable[tuple[CalibrationSetting, pd.DataFrame]]) -> list[dict[str, Any]]:
    """Pool the gradient statistics of each layer over its projections.

    Args:
        settings: Each calibration setting, with the gradients table of its gradient pass.

    Returns:
        An entry for each setting with rows in its table: `calibration`, `taylor_seq_len`, `taylor_num_samples`, and the
        lists `grad_mean` and `grad_norm` with a value for each layer.
    """
    profile = []
    for setting, table in settings:
        rows = table[table["n_samples"] == setting.n_samples]
        layers = [
            pool(moments_of(row) for row in one.to_dict("records")).statistics()
            for _, one in rows.groupby("layer", sort=True)
        ]
        if layers:
            profile.append(
                {
                    "calibration": setting.calibration,
                    "taylor_seq_len": setting.seq_len,
                    "taylor_num_samples": setting.n_samples,
                    "grad_mean": [float(layer["grad_mean"]) for layer in layers],
                    "grad_norm": [float(layer["grad_norm"]) for layer in layers],
                }
            )
    return profile
