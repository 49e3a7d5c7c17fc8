"""Uncertainty of the results of one model at one pruning ratio: `uncertainty` in `analysis.json`.

docs/statistics.md defines the statistics, `espalier.statistics` computes them, and this module collects them. Controls
and the unpruned model have intervals. They are excluded from all other statistics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.best import valid_rows
from espalier.analysis.evidence import Draws
from espalier.analysis.message_json import plain, reason_fields, to_json_list
from espalier.errors import UserError
from espalier.naming import BASELINE
from espalier.statistics import conclusions
from espalier.statistics.bootstrap import LEVEL, Bootstrap
from espalier.statistics.comparison import accuracy_kept
from espalier.statistics.confidence_set import ConfidenceSet, confidence_set
from espalier.statistics.messages import Message
from espalier.statistics.optimism import Shrinkage, SplitHalf, shrinkage, split_half
from espalier.statistics.seeds import SeedErrors, seed_errors
from espalier.statistics.tokens import TokenGroup, compare_at_equal_tokens
from espalier.statistics.variance import Decomposition, VariationPart, decompose

AXES = ("method", "taylor_seq_len", "taylor_num_samples")


def uncertainty_of(rows: pd.DataFrame, evidence: Draws, best: str | None) -> dict[str, Any]:
    """Collect the uncertainty statistics of one model at one pruning ratio.

    Args:
        rows: Experiments of the model at this ratio.
        evidence: Draws and documents of the model.
        best: Name of the best experiment; None if no experiment is valid.

    Returns:
        JSON content. Without draws its statistics are null or empty, and `reason` says why.
    """
    valid = valid_rows(rows)
    shown = [str(name) for name in valid_rows(rows, controls=True)["experiment"]]
    draws = evidence.draws if evidence.covers(shown) else None
    nothing = reason_fields(None if draws else evidence.reason or Message("no_valid_experiment"))
    found: dict[str, Any] = {
        "source": None if draws is None else draws.source,
        "level": LEVEL,
        "n_draws": None if draws is None else len(draws.draws),
        **nothing,
        "baseline": _interval(draws, BASELINE),
        "experiments": _experiments(shown, draws, evidence),
        "methods": {},
        "set": None,
        "optimism": None,
        "axes": None,
        "seeds": None,
        "tokens": [],
        "statements": {},
    }
    if draws is None or best is None:
        return found
    return found | _of_candidates(valid, draws, evidence, best, found["experiments"])


def _of_candidates(
    valid: pd.DataFrame, draws: Bootstrap, evidence: Draws, best: str, experiments: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    names = [str(name) for name in valid["experiment"]]
    methods = [str(method) for method in valid["method"]]
    chosen = draws.select(names)
    theta = chosen.accuracy
    in_set = confidence_set(theta, chosen.draws)
    for number, name in enumerate(names):
        experiments[name] |= {
            "in_set": bool(in_set.members[number]),
            "in_simultaneous_set": bool(in_set.simultaneous_members[number]),
        }
    by_shrinkage, by_halves = shrinkage(theta, chosen.draws), _split_half(evidence, names)
    columns = {axis: _values(valid[axis]) for axis in AXES}
    axes = decompose(theta, columns, chosen.covariance)
    seeds = seed_errors(theta, columns, _values(valid["calibration"]))
    blocks = list(zip(methods, _values(valid["calibration"]), strict=True))
    tokens = compare_at_equal_tokens(
        theta, columns["taylor_seq_len"], columns["taylor_num_samples"], blocks, chosen.draws
    )
    by_method = chosen.averaged(methods)
    ends = by_method.intervals()
    return {
        "methods": {
            name: {"mean": float(by_method.accuracy[number]), "interval": plain(ends[number])}
            for number, name in enumerate(by_method.experiments)
        },
        "set": _set(in_set, names, best),
        "optimism": _optimism(by_shrinkage, by_halves, names, best),
        "axes": _axes(axes),
        "seeds": _seeds(seeds),
        "tokens": [_tokens(group) for group in tokens],
        "statements": {
            "intervals": to_json_list([conclusions.intervals_message(draws)]),
            "set": to_json_list(conclusions.confidence_set_messages(in_set, methods, best)),
            "optimism": to_json_list(conclusions.optimism_messages(names, best, by_shrinkage, by_halves)),
            "axes": to_json_list(conclusions.axes_messages(axes, seeds)) if len(names) > 1 else [],
            "tokens": to_json_list(_about_tokens(group) for group in tokens),
        },
    }


def _values(column: pd.Series[Any]) -> list[Any]:
    """Return the values of a column as Python values, with None for missing values."""
    return [None if pd.isna(value) else plain(value) for value in column]


def _interval(draws: Bootstrap | None, name: str) -> dict[str, Any]:
    if draws is None or name not in draws.experiments:
        return {"interval": None, "stderr": None}
    one = draws.select([name])
    return {"interval": plain(one.intervals()[0]), "stderr": float(one.stderr[0])}


def _experiments(names: list[str], draws: Bootstrap | None, evidence: Draws) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        name: {
            "interval": None, "stderr": None, "in_set": None, "in_simultaneous_set": None,
            "acc_kept": None, "acc_kept_interval": None, "task_stderr": evidence.task_stderr.get(name, {}),
        }
        for name in names
    }  # fmt: skip
    if draws is None or not names:
        return found
    chosen = draws.select(names)
    ends, stderr = chosen.intervals(), chosen.stderr
    kept = None
    if BASELINE in draws.experiments:
        unpruned = draws.select([BASELINE])
        kept = accuracy_kept(chosen.accuracy, float(unpruned.accuracy[0]), chosen.draws, unpruned.draws[:, 0])
    for number, name in enumerate(names):
        found[name] |= {"interval": plain(ends[number]), "stderr": float(stderr[number])}
        if kept is not None and kept.kept is not None:
            found[name]["acc_kept"] = float(kept.kept[number])
            found[name]["acc_kept_interval"] = None if kept.intervals is None else plain(kept.intervals[number])
    return found


def _split_half(evidence: Draws, names: list[str]) -> SplitHalf | None:
    if evidence.documents is None or len(names) < 2:
        return None
    try:
        return split_half(evidence.documents.select(names), seed=0)
    except UserError:  # a task has fewer than two documents
        return None


def _set(of: ConfidenceSet, names: list[str], best: str) -> dict[str, Any]:
    members = np.array(names)
    return {
        "best": best,
        "level": of.level,
        "n": len(names),
        "members": members[of.members].tolist(),
        "n_members": of.n_members,
        "simultaneous_members": members[of.simultaneous_members].tolist(),
        "n_simultaneous_members": int(of.simultaneous_members.sum()),
        "deficit": dict(zip(names, plain(of.deficit), strict=True)),
        "critical": dict(zip(names, plain(of.critical), strict=True)),
        "simultaneous_critical": of.simultaneous_critical,
    }


def _optimism(by_shrinkage: Shrinkage, by_halves: SplitHalf | None, names: list[str], best: str) -> dict[str, Any]:
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


def _axes(of: Decomposition) -> dict[str, Any]:
    parts = of.axes | {"interaction": of.interaction, "within": of.within, "total": of.total}
    return {
        "n": of.n,
        "noise_share": of.noise_share,
        "balanced": of.balanced,
        "parts": {name: _part(part) for name, part in parts.items()},
    }


def _part(of: VariationPart) -> dict[str, Any]:
    numbers = {"share": of.share, "sum_of_squares": of.sum_of_squares, "noise": of.noise, "df": of.df}
    return numbers | reason_fields(of.reason)


def _seeds(of: SeedErrors) -> dict[str, Any]:
    return {
        "seeds": [str(seed) for seed in of.seeds],
        "n_settings": of.n_settings,
        "n_left_out": of.n_left_out,
        "setting_std": of.setting_std,
        **reason_fields(of.reason),
        "axes": {
            name: {
                "values": plain(list(effect.values)),
                "effect": plain(effect.effect),
                "stderr": plain(effect.stderr),
                "intervals": plain(effect.intervals),
                "f": effect.f,
                "df": list(effect.df),
                "p": effect.p,
                **reason_fields(effect.reason),
            }
            for name, effect in of.axes.items()
        },
    }


def _tokens(of: TokenGroup) -> dict[str, Any]:
    return {
        "tokens": of.tokens,
        "n_blocks": len(of.blocks),
        "settings": [
            {
                "taylor_seq_len": one.taylor_seq_len,
                "taylor_num_samples": one.taylor_num_samples,
                "mean": one.mean,
                "interval": None if one.interval is None else list(one.interval),
            }
            for one in of.settings
        ],
        "difference": of.difference,
        "interval": None if of.interval is None else list(of.interval),
    }


def _about_tokens(of: TokenGroup) -> Message:
    lower, upper = of.interval or (of.difference, of.difference)
    return Message(
        "tokens_not_told" if lower <= 0 <= upper else "tokens_told",
        {
            "tokens": of.tokens, "longest": of.settings[-1].taylor_seq_len, "shortest": of.settings[0].taylor_seq_len,
            "difference": of.difference, "lower": lower, "upper": upper,
        },
    )  # fmt: skip
