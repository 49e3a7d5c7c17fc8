"""Comparison of Base and Instruct on their common settings, which has no bias from selecting the best of each."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.best import ModelRows, valid_rows
from espalier.analysis.message_json import reason_fields, to_json_list
from espalier.errors import UserError
from espalier.statistics import conclusions
from espalier.statistics.bootstrap import Bootstrap
from espalier.statistics.comparison import BaseInstructComparison, base_vs_instruct, paired_draws
from espalier.statistics.messages import Message
from espalier.statistics.validation import FloatArray

SETTING = ("method", "taylor_seq_len", "taylor_num_samples", "calibration")


def compare_kinds(
    base: ModelRows, instruct: ModelRows, ratio: float | None, draws: Mapping[str, Bootstrap | None]
) -> dict[str, Any]:
    """Compare the instruct model of a family with its base model at one pruning ratio.

    Args:
        base: Rows of the base model, with its protocol.
        instruct: Rows of the instruct model, with its protocol.
        ratio: Pruning ratio.
        draws: Joint draws of each model; None if a model has none.

    Returns:
        The comparison as JSON content. If the models cannot be compared, its values are null and `reason` says why.
    """
    if base.protocol is None or instruct.protocol is None:
        return _content(_nothing(Message("unknown_protocol")))
    if base.protocol != instruct.protocol:
        return _content(_nothing(Message("other_protocols")))
    if set(base.tasks) != set(instruct.tasks) or base.facts["acc_mean_rule"] != instruct.facts["acc_mean_rule"]:
        return _content(_nothing(Message("other_tasks")))
    rows = [valid_rows(one.at(ratio)) for one in (base, instruct)]
    settings = [_settings(one) for one in rows]
    accuracies = [one["acc_mean"].astype("float64").to_numpy() for one in rows]
    if any(len(set(one)) < len(one) for one in settings):
        return _content(_nothing(Message("setting_twice")))
    if not all(np.isfinite(one).all() for one in accuracies):
        return _content(_nothing(Message("not_finite", {"name": "an accuracy"})))
    pair = _pair([draws.get(one.facts["model"]) for one in (base, instruct)], rows)
    return _content(base_vs_instruct(settings[0], accuracies[0], settings[1], accuracies[1], pair))


def _settings(rows: pd.DataFrame) -> list[Hashable]:
    """Return the setting of each row, with None for missing values: unlike NaN, None equals None."""
    return [
        tuple(None if pd.isna(value) else str(value) for value in row)
        for row in rows[list(SETTING)].itertuples(index=False)
    ]


def _pair(of: list[Bootstrap | None], rows: list[pd.DataFrame]) -> tuple[FloatArray, FloatArray] | None:
    """Return the draws of the experiments in `rows` for both models; None if the draws cannot be compared."""
    if of[0] is None or of[1] is None:
        return None
    names = [[str(name) for name in one["experiment"]] for one in rows]
    try:
        return paired_draws(of[0].select(names[0]), of[1].select(names[1]))
    except UserError:
        return None


def _nothing(reason: Message) -> BaseInstructComparison:
    return BaseInstructComparison((), 0, None, None, None, None, None, 0, None, reason)


def _content(of: BaseInstructComparison) -> dict[str, Any]:
    fields = ("n", "base", "instruct", "difference", "relative_change", "std", "n_instruct_higher")
    return {
        **{field: getattr(of, field) for field in fields},
        "interval": None if of.interval is None else list(of.interval),
        **reason_fields(of.reason),
        "statements": to_json_list(conclusions.base_vs_instruct_messages(of)),
    }
