"""Differences between methods and settings of one model: `comparisons` in `analysis.json`.

The differences of all pruning ratios of the model are one family, whose intervals hold together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.answers import (
    control_messages,
    method_messages,
    setting_messages,
    token_messages,
    turning_messages,
)
from espalier.analysis.contrasts import Contrast, Values, comparable_values, contrast_json, contrasts_of
from espalier.analysis.evidence import Evidence
from espalier.analysis.message_json import reason_fields, to_json_list, to_plain_json
from espalier.analysis.races import common_documents_json, level_after_race
from espalier.analysis.selection import ModelRows, on_common_documents, valid_rows
from espalier.messages.catalogue import Message
from espalier.naming import ratio_key
from espalier.statistics.contrasts import SimultaneousContrasts, simultaneous_contrasts


def compare_within_model(model: ModelRows, evidence: Evidence, *, level: float) -> dict[str, dict[str, Any]]:
    """Compare the methods and settings of one model at each pruning ratio.

    Args:
        model: Rows of the model.
        evidence: Draws of the model.
        level: Level of all differences of the model together. After a race it is raised (`level_after_race`).

    Returns:
        For each pruning ratio (by its key): `measure` (`kept` or `accuracy`), `level`, `critical` (width of the
        intervals in standard errors), `kept` (mean of each method with its own 95% interval), `differences`, and
        `statements`; after a race, `common_documents` has the numbers of documents. Without draws, all lists are
        empty, and `reason` and `why` say why.
    """
    frames = {
        ratio_key(ratio): valid_rows(compared_rows(model.at(ratio), ratio_key(ratio), evidence), controls=True)
        for ratio in model.ratios
    }
    names = [str(name) for frame in frames.values() for name in frame["experiment"]]
    if evidence.draws is None or not names or not evidence.covers(names):
        reason = evidence.reason if evidence.draws is None and evidence.reason else Message("no_valid_experiment")
        return {key: no_comparisons(reason) for key in frames}
    level = max(level_after_race(level, model.at(ratio)) for ratio in model.ratios)
    values = comparable_values({key: draws for key in frames if (draws := evidence.comparable(key)) is not None})
    contrasts = [
        (key, contrast) for key, frame in frames.items() for contrast in contrasts_of(frame, order=model.methods)
    ]
    found = simultaneous([(values[key], contrast) for key, contrast in contrasts], level)
    return {
        key: _at_ratio(key, frame, values[key], contrasts, found, level)
        | common_documents_json(evidence.races.get(key))
        for key, frame in frames.items()
    }


def compared_rows(rows: pd.DataFrame, key: str, evidence: Evidence) -> pd.DataFrame:
    """Return the experiments as they are compared: those of a race on the documents that all of them answered.

    Args:
        rows: Experiments at one pruning ratio.
        key: Key of the ratio.
        evidence: Draws of the model.
    """
    return on_common_documents(rows, evidence.races[key].accuracy) if key in evidence.races else rows


def no_comparisons(reason: Message | None) -> dict[str, Any]:
    """Return the content of a ratio that has no comparisons."""
    return {
        "measure": None, "level": None, "critical": None, "kept": {}, "differences": [], "statements": {},
        **reason_fields(reason),
    }  # fmt: skip


def simultaneous(contrasts: Sequence[tuple[Values, Contrast]], level: float) -> SimultaneousContrasts | None:
    """Return the simultaneous intervals of some differences of one model; None if there is no difference.

    If the races of two ratios have different documents, their draws here are independent. In truth their errors are
    correlated. That makes the intervals wider, not narrower: independence gives the largest critical value (Gaussian
    correlation inequality; Royen 2014).
    """
    if not contrasts:
        return None
    pairs = [values.of(contrast) for values, contrast in contrasts]
    estimate, draws = [pair[0] for pair in pairs], np.stack([pair[1] for pair in pairs], axis=1)
    return simultaneous_contrasts(estimate, draws, level=level)


def turning_statements(by_ratio: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return sentences on methods and settings whose order changes with the ratio, from the results at each ratio."""
    ordered = sorted(by_ratio.values(), key=lambda one: -one["pruning_ratio"])
    differences = [(one["pruning_ratio"], one["comparisons"]["differences"]) for one in ordered]
    return to_json_list(turning_messages(differences))


def _at_ratio(
    key: str, frame: pd.DataFrame, values: Values, contrasts: Sequence[tuple[str, Contrast]],
    found: SimultaneousContrasts | None, level: float,
) -> dict[str, Any]:  # fmt: skip
    differences = [
        contrast_json(contrast, found, index)
        for index, (own, contrast) in enumerate(contrasts)
        if own == key and found is not None
    ]
    return {
        "measure": values.measure,
        "level": level,
        "critical": None if found is None else found.critical,
        "kept": _means(frame, values),
        "differences": differences,
        "statements": {
            "controls": to_json_list(control_messages(differences, values.measure)),
            "methods": to_json_list(method_messages(differences, values.measure)),
            "settings": to_json_list(setting_messages(differences, values.measure)),
            "tokens": to_json_list(token_messages(differences, values.measure)),
        },
        **reason_fields(None),
    }


def _means(frame: pd.DataFrame, values: Values) -> dict[str, dict[str, Any]]:
    """Return the mean value of each method over its experiments, with its 95% interval."""
    if frame.empty:
        return {}
    chosen = values.draws.select([str(name) for name in frame["experiment"]])
    means = chosen.averaged([str(method) for method in frame["method"]])
    ends = means.intervals()
    controls = {str(row["method"]): bool(row["control"]) for row in frame.to_dict("records")}
    return {
        name: {
            "mean": float(means.accuracy[index]),
            "interval": to_plain_json(ends[index]),
            "n": int((frame["method"].astype(str) == name).sum()),
            "control": controls[name],
        }
        for index, name in enumerate(means.experiments)
    }
