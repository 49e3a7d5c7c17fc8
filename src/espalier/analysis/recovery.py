"""Statistics of the recovered experiments of one model: content of `reports/{model}/recovery.json`.

For each pruning ratio, it holds the change of each experiment by fine-tuning, a comparison of the order of the
experiments before and after, and a comparison of the best experiment before and after. Accuracies before and after are
compared on the same documents (joint bootstrap draws). Controls and experiments whose recovery failed are listed, but
they are excluded from the order and from the choice of the best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.best import ModelRows, best_row, number, ratios_of, string, valid_rows, whole
from espalier.analysis.evidence import Samples, judge
from espalier.analysis.message_json import plain, reason_fields, to_json_list
from espalier.errors import UserError
from espalier.naming import ratio_key
from espalier.statistics.bootstrap import LEVEL, Bootstrap, bootstrap, percentile_interval
from espalier.statistics.comparison import paired_draws
from espalier.statistics.confidence_set import confidence_set
from espalier.statistics.documents import check_means
from espalier.statistics.messages import Message
from espalier.statistics.ranking import Ranking, compare_rankings
from espalier.statistics.validation import FloatArray

Draws = tuple[Bootstrap, Bootstrap]


def analyse_recovery(
    of: ModelRows, recovered: pd.DataFrame, draws: Draws | None, *, reason: Message | None = None
) -> dict[str, Any]:
    """Compare the experiments of one model before and after recovery.

    Args:
        of: Rows of the model in the experiments table.
        recovered: Rows of the model in the recovery table.
        draws: Joint draws before and after recovery (`joint_draws`); None gives no intervals.
        reason: Why `draws` is None; None if there are draws.
    """
    return {
        "model": of.facts["model"],
        "level": LEVEL,
        "source": draws[0].source if draws else None,
        **reason_fields(reason),
        "by_ratio": {
            ratio_key(ratio): _at(of, recovered[recovered["pruning_ratio"].map(ratio_key) == ratio_key(ratio)], draws)
            for ratio in ratios_of(recovered["pruning_ratio"])
        },
    }


def joint_draws(
    of: ModelRows, recovered: pd.DataFrame, evaluations: pd.DataFrame, samples: Samples, before: Bootstrap | None,
    *, seed: int,
) -> tuple[Draws | None, Message | None]:  # fmt: skip
    """Draw the accuracies after recovery on the same resampled documents as the accuracies before recovery.

    Args:
        of: Rows of the model in the experiments table.
        recovered: Rows of the model in the recovery table.
        evaluations: The evaluations table.
        samples: Functions that read the samples tables after recovery, by experiment.
        before: Draws of the accuracies before recovery; None if there are none.
        seed: Seed of `before`.

    Returns:
        Draws before and after recovery of the same experiments, and None; or None and the reason why there are none.

    Raises:
        UserError: If the documents before and after recovery differ, or the documents do not give the mean accuracies
            of the recovery table.
    """
    after = recovered[
        (recovered["status"] == "ok") & recovered["experiment"].isin(before.experiments if before else [])
    ]
    names = [str(name) for name in after["experiment"] if name in samples]
    if before is None or before.source != "documents" or not names:
        return None, Message("no_documents")
    rows = evaluations[evaluations["model"] == of.facts["model"]]
    documents = judge(of, rows, {name: samples[name] for name in names})
    if documents is None:
        return None, Message("no_documents")
    check_means(documents, dict(zip(after["experiment"], after["acc_mean_after"], strict=True)))
    drawn = bootstrap(documents, seed=seed, n_draws=len(before.draws))
    paired_draws(before, drawn)
    # The draws before recovery were stored in float32. Round these likewise, so that equal accuracies stay equal.
    rounded = drawn.draws.astype(np.float32).astype(np.float64)
    return (before.select(names), replace(drawn, draws=rounded)), None


def _at(of: ModelRows, rows: pd.DataFrame, draws: Draws | None) -> dict[str, Any]:
    text = of.texts[0] if of.texts else None
    at_ratio = of.at(float(rows["pruning_ratio"].iloc[0]))
    controls = set(at_ratio.loc[at_ratio["control"], "experiment"])
    candidates = set(valid_rows(at_ratio)["experiment"])
    shown = {
        str(row["experiment"]): {"control": row["experiment"] in controls, **_experiment(row, text, draws)}
        for row in rows.to_dict("records")
    }
    counted = [name for name, one in shown.items() if one["acc_after"] is not None and name in candidates]
    ranking, best = _ranking(shown, counted, draws), _best(of, rows, counted, draws)
    return {
        "pruning_ratio": float(rows["pruning_ratio"].iloc[0]),
        "text": text,
        "n": len(counted),
        "n_candidates": len(candidates),
        "experiments": shown,
        "ranking": None if ranking is None else _ranked(ranking),
        "best": best,
        "statements": to_json_list([*_about_ranking(ranking, len(counted), len(candidates)), *_about_best(best)]),
    }


def _experiment(row: Mapping[Any, Any], text: str | None, draws: Draws | None) -> dict[str, Any]:
    name = str(row["experiment"])
    before, after = number(row["acc_mean_before"]), number(row["acc_mean_after"])
    known = draws is not None and name in draws[0].experiments
    return {
        "acc_before": before,
        "acc_after": after,
        "change": None if before is None or after is None else after - before,
        "change_interval": plain(percentile_interval(_change(draws, name))) if known and draws else None,
        "ppl_before": number(row[f"ppl_before_{text}"]) if text else None,
        "ppl_after": number(row[f"ppl_after_{text}"]) if text else None,
        "n_tokens": whole(row["n_tokens"]),
        "n_trainable": whole(row["n_trainable"]),
        "seconds": number(row["seconds"]),
        "status": str(row["status"]),
        "note": string(row["note"]),
    }


def _change(draws: Draws, name: str) -> FloatArray:
    before, after = (one.select([name]).draws[:, 0] for one in draws)
    return after - before


def _both(draws: Draws | None, names: list[str]) -> tuple[FloatArray, FloatArray] | None:
    if draws is None or not set(names) <= set(draws[0].experiments):
        return None
    return draws[0].select(names).draws, draws[1].select(names).draws


def _ranking(shown: Mapping[str, Mapping[str, Any]], names: list[str], draws: Draws | None) -> Ranking | None:
    if len(names) < 2:
        return None
    before, after = ([shown[name][key] for name in names] for key in ("acc_before", "acc_after"))
    return compare_rankings(before, after, _both(draws, names))


def _ranked(of: Ranking) -> dict[str, Any]:
    fields = ("n", "tau", "p", "smallest_p", "interval", "level")
    return {field: plain(getattr(of, field)) for field in fields} | reason_fields(of.reason)


def _best(of: ModelRows, rows: pd.DataFrame, names: list[str], draws: Draws | None) -> dict[str, Any] | None:
    """Compare the best experiment before recovery with the best after recovery, among the recovered experiments."""
    if len(names) < 2:
        return None
    before = of.experiments[of.experiments["experiment"].isin(names)].set_index("experiment", drop=False)
    recovered = rows.set_index("experiment").loc[before.index]
    ppl = {f"ppl_{text}": recovered[f"ppl_after_{text}"] for text in of.texts}
    first, second = (
        best_row(frame, of.texts) for frame in (before, before.assign(acc_mean=recovered["acc_mean_after"], **ppl))
    )
    if first is None or second is None:
        raise UserError(f"recovery: no experiment of {', '.join(names)} counts; recover others")
    old, new = str(first["experiment"]), str(second["experiment"])
    accuracy = {str(name): float(value) for name, value in recovered["acc_mean_after"].items()}
    found = {"before": old, "after": new, "n": len(names), "difference": accuracy[new] - accuracy[old]}
    both = _both(draws, names)
    if both is None:
        return found | {"interval": None, "told": None, "n_members": None}
    in_set = confidence_set([accuracy[name] for name in names], both[1])
    drawn = both[1][:, names.index(new)] - both[1][:, names.index(old)]
    told = not bool(in_set.members[names.index(old)])
    return found | {"interval": plain(percentile_interval(drawn)), "told": told, "n_members": in_set.n_members}


def _about_ranking(of: Ranking | None, n: int, n_candidates: int) -> list[Message]:
    if of is None:
        return [Message("ranking_none", {"n": n})]
    said = []
    if of.tau is None or of.p is None or of.smallest_p is None:
        said.append(Message("ranking_undefined", {"reason": of.reason or Message("no_spread")}))
    else:
        values = {"tau": of.tau, "n": of.n, "p": of.p}
        lower, upper = of.interval or (-1.0, 1.0)
        told = of.p <= 1 - LEVEL and (lower > 0 or upper < 0)
        code = ("ranking_kept" if of.tau > 0 else "ranking_reversed") if told else "ranking_open"
        said.append(Message(code, values))
        if of.interval is not None:
            said.append(Message("ranking_interval", {"lower": lower, "upper": upper, "level": of.level}))
        if of.smallest_p > 1 - LEVEL:
            said.append(Message("ranking_few", {"n": of.n, "p": of.smallest_p}))
    if n < n_candidates:
        said.append(Message("ranking_part", {"n": n, "total": n_candidates}))
    return said


def _about_best(of: Mapping[str, Any] | None) -> list[Message]:
    if of is None:
        return []
    values = {key: of[key] for key in ("before", "after", "n", "difference")}
    if of["before"] == of["after"]:
        said = [Message("best_stays", values)]
        return said if of["n_members"] is None else [*said, _members(of)]
    if of["interval"] is None:
        return [Message("best_changes", values)]
    lower, upper = of["interval"]
    code = "best_changes_told" if of["told"] else "best_changes_open"
    return [Message(code, values | {"lower": lower, "upper": upper})]


def _members(of: Mapping[str, Any]) -> Message:
    code = "best_stays_alone" if of["n_members"] == 1 else "best_stays_among"
    return Message(code, {"members": of["n_members"], "n": of["n"], "level": LEVEL})
