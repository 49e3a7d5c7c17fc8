"""Settings (method, length, samples, calibration) that several models were run with, and their experiments."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import pandas as pd

from espalier.analysis.selection import ModelRows, valid_rows

SETTING_COLUMNS = ("method", "taylor_seq_len", "taylor_num_samples", "calibration")


def settings_of(rows: pd.DataFrame) -> list[Hashable]:
    """Return the setting of each row, with None for missing values: unlike NaN, None equals None."""
    return [
        tuple(None if pd.isna(value) else str(value) for value in row)
        for row in rows[list(SETTING_COLUMNS)].itertuples(index=False)
    ]


def experiments_of_common_settings(models: Sequence[ModelRows], ratio: float | None) -> list[tuple[str, ...]]:
    """Return the experiments of the settings that all models have at a pruning ratio, controls left out.

    Returns:
        The experiments of each model, in the same order of settings. All are empty if the models have no setting in
        common, or a model has a setting twice.
    """
    rows = [valid_rows(model.at(ratio)) for model in models]
    of_setting = [dict(zip(settings_of(frame), frame["experiment"].map(str), strict=True)) for frame in rows]
    common = [setting for setting in of_setting[0] if all(setting in known for known in of_setting)]
    if any(len(known) < len(frame) for known, frame in zip(of_setting, rows, strict=True)):
        common = []
    return [tuple(str(known[setting]) for setting in common) for known in of_setting]
