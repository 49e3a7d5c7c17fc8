"""Comparison of Base and Instruct on their common settings, which has no bias from selecting the best of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.common_settings import experiments_of_common_settings, settings_of
from espalier.analysis.message_json import reason_fields, to_json_list
from espalier.analysis.selection import ModelRows, is_raced, valid_rows
from espalier.analysis.study_comparisons import PairOnSettings
from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.statistics.bootstrap import Bootstrap
from espalier.statistics.comparison import BaseInstructComparison, PairedDraws, base_vs_instruct, paired_draws


def compare_base_and_instruct(
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
    if reason := _why_not(base, instruct):
        return _comparison_json(_undefined(reason))
    rows = [valid_rows(model.at(ratio)) for model in (base, instruct)]
    settings = [settings_of(frame) for frame in rows]
    accuracies = [frame["acc_mean"].astype("float64").to_numpy() for frame in rows]
    if any(len(set(of_model)) < len(of_model) for of_model in settings):
        return _comparison_json(_undefined(Message("setting_twice")))
    if not all(np.isfinite(accuracy).all() for accuracy in accuracies):
        return _comparison_json(_undefined(Message("not_finite", {"name": Message("name.acc_mean")})))
    pair = _paired_draws([draws.get(model.model) for model in (base, instruct)], rows)
    if pair is None and any(is_raced(model.experiments) for model in (base, instruct)):
        return _comparison_json(_undefined(Message("other_documents")))
    return _comparison_json(base_vs_instruct(settings[0], accuracies[0], settings[1], accuracies[1], pair))


def _why_not(base: ModelRows, instruct: ModelRows) -> Message | None:
    """Return why two models cannot be compared, whatever their accuracies are; None if they can."""
    if base.protocol is None or instruct.protocol is None:
        return Message("unknown_protocol")
    if base.protocol != instruct.protocol:
        return Message("other_protocols")
    if set(base.tasks) != set(instruct.tasks) or base.acc_mean_rule != instruct.acc_mean_rule:
        return Message("other_tasks")
    if base.skipped != instruct.skipped:
        return Message("other_documents")
    return None


def pair_on_settings(base: ModelRows, instruct: ModelRows, ratio: float | None) -> PairOnSettings | None:
    """Return the experiments of the common settings of two models at one ratio; None if there are none to compare."""
    names = experiments_of_common_settings((base, instruct), ratio)
    return PairOnSettings(base.family, base.model, instruct.model, *names) if names[0] else None


def _paired_draws(draws: list[Bootstrap | None], rows: list[pd.DataFrame]) -> PairedDraws | None:
    """Return the draws of the experiments in `rows` for both models; None if the draws cannot be compared."""
    if draws[0] is None or draws[1] is None:
        return None
    names = [[str(name) for name in frame["experiment"]] for frame in rows]
    try:
        return paired_draws(draws[0].select(names[0]), draws[1].select(names[1]))
    except UserError:
        return None


def _undefined(reason: Message) -> BaseInstructComparison:
    return BaseInstructComparison((), 0, None, None, None, None, None, 0, None, reason)


def _comparison_json(comparison: BaseInstructComparison) -> dict[str, Any]:
    fields = ("n", "base", "instruct", "difference", "relative_change", "std", "n_instruct_higher")
    return {
        **{field: getattr(comparison, field) for field in fields},
        "interval": None if comparison.interval is None else list(comparison.interval),
        **reason_fields(comparison.reason),
        "statements": []
        if comparison.reason is None
        else to_json_list([Message("kinds_undefined", {"reason": comparison.reason})]),
    }
