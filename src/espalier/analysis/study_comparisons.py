"""Differences over several models: `comparisons` in `analysis_summary.json`.

A difference of a group of models (all, of a kind, of a family) is the mean over its models, which are as given: nothing
is said about other models. The documents of all models are the same and their draws are joint. All differences of all
groups and pruning ratios, the differences between models, and those between Base and Instruct, are one family, whose
intervals hold together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from espalier.analysis.answers import control_messages, method_messages, setting_messages
from espalier.analysis.comparisons import no_comparisons
from espalier.analysis.contrasts import (
    LENGTH,
    SAMPLES,
    Contrast,
    Values,
    comparable_values,
    contrast_json,
    contrasts_of,
)
from espalier.analysis.message_json import reason_fields, to_json_list, to_plain_json
from espalier.analysis.model_ranking import model_messages, no_ranking, rank_models, ranking_json
from espalier.analysis.selection import ModelRows, valid_rows
from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.naming import ratio_key
from espalier.statistics.bootstrap import Bootstrap, percentile_interval
from espalier.statistics.comparison import check_paired
from espalier.statistics.contrasts import SimultaneousContrasts, simultaneous_contrasts
from espalier.statistics.validation import FloatArray

ALL, KIND, FAMILY = "all", "kind", "family"


@dataclass(frozen=True)
class Group:
    """A group of models: all models, or those of one kind or family."""

    by: str
    value: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class PairOnSettings:
    """Base and instruct model of a family, with the experiments of their common settings, in the same order."""

    family: str
    base: str
    instruct: str
    base_experiments: tuple[str, ...]
    instruct_experiments: tuple[str, ...]


@dataclass(frozen=True)
class _Difference:
    """One difference of the family: its value and its draws, (n_draws,)."""

    ratio: str
    group: Group
    contrast: Contrast
    models: tuple[str, ...]
    estimate: float
    draws: FloatArray


def compare_over_models(
    models: Sequence[ModelRows],
    draws: Mapping[str, Bootstrap | None],
    pairs: Mapping[str, Sequence[PairOnSettings]],
    *,
    level: float,
) -> dict[str, dict[str, Any]]:
    """Compare methods and settings over the models of a study, and Base with Instruct.

    Args:
        models: Rows of each model, with its protocol.
        draws: Joint draws of each model; None if a model has none.
        pairs: For each pruning ratio (by its key), the base and instruct models to compare.
        level: Level of all differences together.

    Returns:
        For each pruning ratio (by its key): the content of `compare_within_model` for all models together (`kept`,
        `differences`, `statements`), `models` (those with valid experiments at the ratio) and `left_out` (models
        without draws), `groups` with differences and statements of each kind and family, `ranking` of the models, and
        `base_vs_instruct` with a difference by family, of the same measure.
        If models cannot be compared, all lists are empty, and `reason` and `why` say why.
    """
    used = [model for model in models if draws.get(model.model) is not None]
    left_out = [model.model for model in models if draws.get(model.model) is None]
    ratios = {ratio_key(ratio): ratio for model in models for ratio in model.ratios}
    reason = _why_not(used, draws, len(models))
    if reason is not None:
        return {key: nothing_compared(reason, left_out) for key in ratios}
    own = {model.model: draws[model.model] for model in used}
    values = comparable_values({name: one for name, one in own.items() if one is not None})
    family = [
        difference
        for key, ratio in ratios.items()
        for difference in _differences(
            key, {m.model: contrasts_of(_valid(m, ratio), m.methods) for m in used}, used, values
        )
    ]
    kinds = [(key, pair) for key in ratios for pair in pairs.get(key, ()) if {pair.base, pair.instruct} <= set(own)]
    drawn = [_kinds_difference(pair, values) for _, pair in kinds]
    rankings = {key: rank_models(used, ratio, values) for key, ratio in ratios.items()}
    between = [(key, pair) for key, ranking in rankings.items() for pair in ranking.pairs]
    first_pair = {key: next((i for i, one in enumerate(between) if one[0] == key), 0) for key in ratios}
    columns = [(one.estimate, one.draws) for one in family] + drawn
    columns += [rankings[key].difference(pair) for key, pair in between]
    if not columns:
        return {key: nothing_compared(Message("nothing_to_compare"), left_out) for key in ratios}
    found = simultaneous_contrasts(
        [one[0] for one in columns], np.stack([one[1] for one in columns], axis=1), level=level
    )
    measure = next(iter(values.values())).measure
    present = {key: [m.model for m in used if len(_valid(m, ratio))] for key, ratio in ratios.items()}
    ranked = {
        key: ranking_json(ranking, found, len(family) + len(drawn) + first_pair[key])
        for key, ranking in rankings.items()
    }
    return {
        key: {
            **_at_ratio(key, family, found, measure, ranked[key], present[key]),
            "ranking": ranked[key],
            "level": level,
            "critical": found.critical,
            "models": present[key],
            "left_out": left_out,
            "kept": _means(used, ratio, values),
            "base_vs_instruct": {
                pair.family: {
                    "difference": float(found.estimate[index]),
                    "interval": to_plain_json(found.intervals[index]),
                    "differs": bool(found.differs[index]),
                    "n": len(pair.base_experiments),
                    "measure": measure,
                }
                for index, (own_key, pair) in enumerate(kinds, start=len(family))
                if own_key == key
            },
            **reason_fields(None),
        }
        for key, ratio in ratios.items()
    }


def groups_of(models: Iterable[ModelRows]) -> list[Group]:
    """List the groups of at least two models: all, and those of each kind and family."""
    found = list(models)
    named = [(ALL, "", found)]
    named += [(KIND, kind, [one for one in found if one.kind == kind]) for kind in ("base", "instruct")]
    families = dict.fromkeys(one.family for one in found)
    named += [(FAMILY, family, [one for one in found if one.family == family]) for family in families]
    everyone = len(found)
    return [
        Group(by, value, tuple(one.model for one in members))
        for by, value, members in named
        if len(members) > 1 and (by == ALL or len(members) < everyone)
    ]


def nothing_compared(reason: Message, left_out: list[str]) -> dict[str, Any]:
    """Return the content of a ratio at which models cannot be compared."""
    return no_comparisons(reason) | {
        "models": [], "left_out": left_out, "groups": [], "base_vs_instruct": {}, "ranking": no_ranking(reason),
    }  # fmt: skip


def _valid(model: ModelRows, ratio: float) -> Any:
    return valid_rows(model.at(ratio), controls=True)


def _why_not(models: Sequence[ModelRows], draws: Mapping[str, Bootstrap | None], n_models: int) -> Message | None:
    """Return why the models cannot be compared; None if they can."""
    if len(models) < 2:
        return Message("one_model" if n_models < 2 else "few_with_draws")
    if len({model.protocol for model in models}) > 1:
        return Message("other_protocols")
    if len({(tuple(sorted(model.tasks)), model.acc_mean_rule) for model in models}) > 1:
        return Message("other_tasks")
    known = [one for model in models if (one := draws[model.model]) is not None]
    try:
        for first, second in pairwise(known):
            check_paired(first, second)
    except UserError:
        return Message("other_documents")
    return None


def _differences(
    key: str, contrasts: Mapping[str, Sequence[Contrast]], models: Sequence[ModelRows], values: Mapping[str, Values]
) -> list[_Difference]:
    by_model = {name: {one.key: one for one in of_model} for name, of_model in contrasts.items()}
    single = {
        (name, what): values[name].of(contrast) for name, known in by_model.items() for what, contrast in known.items()
    }
    found = []
    for group in groups_of(models):
        for what in dict.fromkeys(what for name in group.models for what in by_model[name]):
            if what[0] not in ({"method"} if group.by == FAMILY else {"method", LENGTH, SAMPLES}):
                continue
            members = tuple(name for name in group.models if what in by_model[name])
            if len(members) < 2:
                continue
            parts = [single[name, what] for name in members]
            contrast = min((by_model[name][what] for name in members), key=lambda one: one.n)
            estimate = float(np.mean([part[0] for part in parts]))
            drawn = np.mean([part[1] for part in parts], axis=0)
            found.append(_Difference(key, group, contrast, members, estimate, drawn))
    return found


def _kinds_difference(pair: PairOnSettings, values: Mapping[str, Values]) -> tuple[float, FloatArray]:
    base = values[pair.base].draws.select(pair.base_experiments)
    instruct = values[pair.instruct].draws.select(pair.instruct_experiments)
    estimate = float(instruct.accuracy.mean() - base.accuracy.mean())  # of the measure: what they keep, or accuracy
    return estimate, instruct.draws.mean(axis=1) - base.draws.mean(axis=1)


def _at_ratio(
    key: str, family: Sequence[_Difference], found: SimultaneousContrasts, measure: str, ranking: Mapping[str, Any],
    present: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    by_group: dict[Group, list[dict[str, Any]]] = {}
    for index, one in enumerate(family):
        if one.ratio == key:
            content = contrast_json(one.contrast, found, index, models=list(one.models))
            by_group.setdefault(one.group, []).append(content)
    overall = next((rows for group, rows in by_group.items() if group.by == ALL), [])
    return {
        "measure": measure,
        "differences": overall,
        "statements": {
            "models": to_json_list(model_messages(ranking, measure)),
            **_statements(overall, measure, present),
        },
        "groups": [
            {
                "by": group.by,
                "value": group.value,
                "models": list(group.models),
                "differences": rows,
                "statements": _statements(rows, measure, [name for name in group.models if name in present]),
            }
            for group, rows in by_group.items()
            if group.by != ALL
        ],
    }


def _statements(rows: Sequence[Mapping[str, Any]], measure: str, models: Sequence[str]) -> dict[str, Any]:
    """Return the statements on a group of models. Those that not all of the models support name theirs."""
    rows = [row | {"only": row["models"] if row["models"] != list(models) else None} for row in map(dict, rows)]
    return {
        "controls": to_json_list(control_messages(rows, measure)),
        "methods": to_json_list(method_messages(rows, measure)),
        "settings": to_json_list(setting_messages(rows, measure)),
    }


def _means(models: Sequence[ModelRows], ratio: float, values: Mapping[str, Values]) -> dict[str, dict[str, Any]]:
    """Return the mean value of each method that all models ran, over the models, with its 95% interval."""
    of_model: dict[str, dict[str, tuple[float, FloatArray, bool]]] = {}
    for model in models:
        frame = _valid(model, ratio)
        if frame.empty:
            continue
        chosen = values[model.model].draws.select([str(name) for name in frame["experiment"]])
        means = chosen.averaged([str(method) for method in frame["method"]])
        controls = {str(row["method"]): bool(row["control"]) for row in frame.to_dict("records")}
        of_model[model.model] = {
            name: (float(means.accuracy[index]), means.draws[:, index], controls[name])
            for index, name in enumerate(means.experiments)
        }
    if len(of_model) < 2:
        return {}
    first = next(iter(of_model.values()))
    found = {}
    for name, (_, _, control) in first.items():
        if all(name in one for one in of_model.values()):
            parts = [one[name] for one in of_model.values()]
            ends = percentile_interval(np.mean([part[1] for part in parts], axis=0))
            mean = float(np.mean([part[0] for part in parts]))
            found[name] = {"mean": mean, "interval": to_plain_json(ends), "n": len(parts), "control": control}
    return found
