"""Uncertainty of the results of one model at one pruning ratio: `uncertainty` in `analysis.json`.

docs/statistics.md defines the statistics, `espalier.statistics` computes them, and this module collects them. Controls
and the unpruned model have intervals. They are excluded from all other statistics.

After a race, intervals of single experiments are those of the experiments that answered all documents. Comparisons of
all experiments rest on the documents that all of them answered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.comparisons import compared_rows
from espalier.analysis.evidence import CommonDocuments, Evidence
from espalier.analysis.message_json import reason_fields, to_json_list, to_plain_json
from espalier.analysis.races import race_set
from espalier.analysis.selection import valid_rows
from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.naming import BASELINE, ratio_key
from espalier.statistics import conclusions
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL, Bootstrap
from espalier.statistics.comparison import accuracy_kept
from espalier.statistics.confidence_set import ConfidenceSet, confidence_set
from espalier.statistics.levels import PageLevels
from espalier.statistics.optimism import Shrinkage, SplitHalf, shrinkage, split_half
from espalier.statistics.seeds import SeedErrors, seed_errors
from espalier.statistics.tokens import TokenGroup, compare_at_equal_tokens
from espalier.statistics.variance import Decomposition, VariationPart, decompose

AXES = ("method", "taylor_seq_len", "taylor_num_samples")


def uncertainty_of(rows: pd.DataFrame, evidence: Evidence, best: str | None, levels: PageLevels) -> dict[str, Any]:
    """Collect the uncertainty statistics of one model at one pruning ratio.

    Args:
        rows: Experiments of the model at this ratio.
        evidence: Draws and documents of the model.
        best: Name of the best experiment; None if no experiment is valid.
        levels: Levels of the statements at this ratio: that of the set, and that of each test against seeds.

    Returns:
        JSON content. Without draws its statistics are null or empty, and `reason` says why.
    """
    valid = valid_rows(rows)
    shown = [str(name) for name in valid_rows(rows, controls=True)["experiment"]]
    draws = evidence.draws if evidence.covers(shown) else None
    reason = evidence.reason or Message("no_valid_experiment")
    reason_of_none = reason_fields(None if draws else reason)
    content: dict[str, Any] = {
        "source": None if draws is None else draws.source,
        "level": CONFIDENCE_LEVEL,
        "n_draws": None if draws is None else len(draws.draws),
        **reason_of_none,
        "baseline": _interval_json(draws, BASELINE),
        "experiments": _experiments_json(shown, draws, evidence),
        "methods": {},
        "set": None,
        "optimism": None,
        "axes": None,
        "seeds": None,
        "tokens": [],
        "statements": {},
    }
    if draws is None or best is None:
        return content
    key = ratio_key(float(rows["pruning_ratio"].iloc[0]))
    compared = valid_rows(compared_rows(rows, key, evidence))
    common = evidence.races.get(key)
    of_best = (
        _best_of_all(valid, draws, evidence, best, levels)
        if common is None
        else _best_of_race(rows, compared, common, best)
    )
    compared_draws = draws if common is None else common.draws
    found = content | of_best | _comparisons(compared, compared_draws, levels)
    found["methods"] = _method_means(valid_rows(compared_rows(rows, key, evidence), controls=True), compared_draws)
    found["statements"] = {
        "intervals": to_json_list([conclusions.intervals_message(draws)]), **of_best["statements"],
        **found["statements"],
    }  # fmt: skip
    if found["set"] is not None:
        for name in map(str, valid["experiment"]):
            found["experiments"][name] |= {
                "in_set": name in found["set"]["members"],
                "in_simultaneous_set": name in found["set"]["simultaneous_members"],
            }
    return found


def _best_of_all(
    valid: pd.DataFrame, draws: Bootstrap, evidence: Evidence, best: str, levels: PageLevels
) -> dict[str, Any]:
    """Return which experiments cannot be distinguished from the best, and the bias from its selection."""
    names, methods = ([str(value) for value in valid[column]] for column in ("experiment", "method"))
    candidates = draws.select(names)
    in_set = confidence_set(candidates.accuracy, candidates.draws, simultaneous_level=levels.sets)
    by_shrinkage = shrinkage(candidates.accuracy, candidates.draws)
    by_halves = _split_half_if_possible(evidence, names)
    return {
        "set": _confidence_set_json(in_set, names, best),
        "optimism": _optimism_json(by_shrinkage, by_halves, names, best),
        "statements": {
            "set": to_json_list(conclusions.confidence_set_messages(in_set, methods, best)),
            "optimism": to_json_list(conclusions.optimism_messages(names, best, by_shrinkage, by_halves)),
        },
    }


def _best_of_race(
    rows: pd.DataFrame, compared: pd.DataFrame, common: CommonDocuments, best: str
) -> dict[str, Any]:  # fmt: skip
    """Return the same after a race: a set only if the race kept it, and no bias, which needs all experiments."""
    names, methods = ([str(value) for value in compared[column]] for column in ("experiment", "method"))
    in_set = race_set(rows, names, common)
    if in_set is None:
        return {"statements": {"set": [], "optimism": [], "race": to_json_list([Message("race_no_set")])}}
    values = {"level": in_set.simultaneous_level}
    return {
        "set": _confidence_set_json(in_set, names, best),
        "statements": {
            "set": to_json_list(conclusions.confidence_set_messages(in_set, methods, best)),
            "optimism": [],
            "race": to_json_list([Message("race_set", values)]),
        },
    }


def _comparisons(valid: pd.DataFrame, draws: Bootstrap, levels: PageLevels) -> dict[str, Any]:
    """Return the statistics that compare methods and settings."""
    names = [str(name) for name in valid["experiment"]]
    methods = [str(method) for method in valid["method"]]
    candidates = draws.select(names)
    accuracy = candidates.accuracy
    columns = {axis: _column_values(valid[axis]) for axis in AXES}
    axes = decompose(accuracy, columns, candidates.covariance)
    seeds = seed_errors(accuracy, columns, _column_values(valid["calibration"]))
    blocks = list(zip(methods, _column_values(valid["calibration"]), strict=True))
    tokens = compare_at_equal_tokens(
        accuracy, columns["taylor_seq_len"], columns["taylor_num_samples"], blocks, candidates.draws
    )
    return {
        "axes": _axes_json(axes),
        "seeds": _seeds_json(seeds),
        "tokens": [_token_group_json(group) for group in tokens],
        "statements": {"axes": to_json_list(conclusions.axes_messages(seeds, levels.seeds)) if len(names) > 1 else []},
    }


def _method_means(rows: pd.DataFrame, draws: Bootstrap) -> dict[str, dict[str, Any]]:
    """Return the mean accuracy of each method and control over its experiments, with its interval."""
    shown = draws.select([str(name) for name in rows["experiment"]])
    means = shown.averaged([str(method) for method in rows["method"]])
    ends = means.intervals()
    return {
        name: {"mean": float(means.accuracy[index]), "interval": to_plain_json(ends[index])}
        for index, name in enumerate(means.experiments)
    }


def _column_values(column: pd.Series[Any]) -> list[Any]:
    """Return the values of a column as Python values, with None for missing values."""
    return [None if pd.isna(value) else to_plain_json(value) for value in column]


def _interval_json(draws: Bootstrap | None, name: str) -> dict[str, Any]:
    if draws is None or name not in draws.experiments:
        return {"interval": None, "stderr": None}
    selected = draws.select([name])
    return {"interval": to_plain_json(selected.intervals()[0]), "stderr": float(selected.stderr[0])}


def _experiments_json(names: list[str], draws: Bootstrap | None, evidence: Evidence) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = {
        name: {
            "interval": None, "stderr": None, "in_set": None, "in_simultaneous_set": None,
            "acc_kept": None, "acc_kept_interval": None, "task_stderr": evidence.task_stderr.get(name, {}),
        }
        for name in names
    }  # fmt: skip
    if draws is None or not names:
        return content
    shown = draws.select(names)
    intervals, stderr = shown.intervals(), shown.stderr
    kept = None
    if BASELINE in draws.experiments:
        unpruned = draws.select([BASELINE])
        kept = accuracy_kept(shown.accuracy, float(unpruned.accuracy[0]), shown.draws, unpruned.draws[:, 0])
    for index, name in enumerate(names):
        content[name] |= {"interval": to_plain_json(intervals[index]), "stderr": float(stderr[index])}
        if kept is not None and kept.kept is not None:
            content[name]["acc_kept"] = float(kept.kept[index])
            content[name]["acc_kept_interval"] = (
                None if kept.intervals is None else to_plain_json(kept.intervals[index])
            )
    return content


def _split_half_if_possible(evidence: Evidence, names: list[str]) -> SplitHalf | None:
    if evidence.documents is None or len(names) < 2:
        return None
    try:
        return split_half(evidence.documents.select(names), seed=0)
    except UserError:  # a task has fewer than two documents
        return None


def _confidence_set_json(in_set: ConfidenceSet, names: list[str], best: str) -> dict[str, Any]:
    members = np.array(names)
    return {
        "best": best,
        "level": in_set.level,
        "n": len(names),
        "members": members[in_set.members].tolist(),
        "n_members": in_set.n_members,
        "simultaneous_level": in_set.simultaneous_level,
        "simultaneous_members": members[in_set.simultaneous_members].tolist(),
        "n_simultaneous_members": int(in_set.simultaneous_members.sum()),
        "deficit": dict(zip(names, to_plain_json(in_set.deficit), strict=True)),
        "critical": dict(zip(names, to_plain_json(in_set.critical), strict=True)),
        "simultaneous_critical": in_set.simultaneous_critical,
    }


def _optimism_json(by_shrinkage: Shrinkage, by_halves: SplitHalf | None, names: list[str], best: str) -> dict[str, Any]:
    fields = ("best", "mean", "noise_variance", "observed_variance", "noise_share", "optimism", "corrected")
    return {
        "shrinkage": {field: getattr(by_shrinkage, field) for field in fields} | reason_fields(by_shrinkage.reason),
        "split_half_at_half_the_documents": None
        if by_halves is None
        else {
            "n_splits": by_halves.n_splits,
            "optimism": by_halves.optimism,
            "optimism_std": by_halves.optimism_std,
            "chosen_on": by_halves.chosen_on,
            "scored_on": by_halves.scored_on,
            "best_chosen_share": float(by_halves.chosen_share[names.index(best)]),
        },
    }


def _axes_json(decomposition: Decomposition) -> dict[str, Any]:
    parts = decomposition.axes | {
        "interaction": decomposition.interaction,
        "within": decomposition.within,
        "total": decomposition.total,
    }
    return {
        "n": decomposition.n,
        "noise_share": decomposition.noise_share,
        "balanced": decomposition.balanced,
        "parts": {name: _part_json(part) for name, part in parts.items()},
    }


def _part_json(part: VariationPart) -> dict[str, Any]:
    numbers = {"share": part.share, "sum_of_squares": part.sum_of_squares, "noise": part.noise, "df": part.df}
    return numbers | reason_fields(part.reason)


def _seeds_json(errors: SeedErrors) -> dict[str, Any]:
    return {
        "seeds": [str(seed) for seed in errors.seeds],
        "n_settings": errors.n_settings,
        "n_left_out": errors.n_left_out,
        "setting_std": errors.setting_std,
        **reason_fields(errors.reason),
        "axes": {
            name: {
                "values": to_plain_json(list(effect.values)),
                "effect": to_plain_json(effect.effect),
                "stderr": to_plain_json(effect.stderr),
                "intervals": to_plain_json(effect.intervals),
                "f": effect.f,
                "df": list(effect.df),
                "p": effect.p,
                **reason_fields(effect.reason),
            }
            for name, effect in errors.axes.items()
        },
    }


def _token_group_json(group: TokenGroup) -> dict[str, Any]:
    return {
        "tokens": group.tokens,
        "n_blocks": len(group.blocks),
        "settings": [
            {
                "taylor_seq_len": setting.taylor_seq_len,
                "taylor_num_samples": setting.taylor_num_samples,
                "mean": setting.mean,
                "interval": None if setting.interval is None else list(setting.interval),
            }
            for setting in group.settings
        ],
        "difference": group.difference,
        "interval": None if group.interval is None else list(group.interval),
    }
