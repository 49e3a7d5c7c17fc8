"""Statistics of the recovered experiments of one model: content of `reports/{model}/recovery.json`.

For each pruning ratio, it holds the change of each experiment by fine-tuning, a comparison of the order of the
experiments before and after, and a comparison of the best experiment before and after. Accuracies before and after are
compared on the same documents (joint bootstrap draws). Controls and experiments whose recovery failed are listed, but
they are excluded from the order and from the choice of the best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from espalier.analysis.evidence import SamplesReaders, correctness_of, with_spread
from espalier.analysis.message_json import reason_fields, to_json_list, to_plain_json
from espalier.analysis.selection import STOPPED, ModelRows, best_row, ratios_of, to_float, to_int, to_str, valid_rows
from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.naming import ratio_key
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL, Bootstrap, bootstrap, percentile_interval
from espalier.statistics.comparison import check_paired
from espalier.statistics.confidence_set import confidence_set
from espalier.statistics.correctness import check_means
from espalier.statistics.ranking import Ranking, compare_rankings


class RecoveryDraws(NamedTuple):
    """Joint draws of the accuracies before and after recovery, of the same experiments."""

    before: Bootstrap
    after: Bootstrap


class JointDraws(NamedTuple):
    """Draws before and after recovery; None if there are none, with the reason."""

    draws: RecoveryDraws | None
    reason: Message | None


def analyse_recovery(model: ModelRows, recovered: pd.DataFrame, joint: JointDraws) -> dict[str, Any]:
    """Compare the experiments of one model before and after recovery.

    Args:
        model: Rows of the model in the experiments table.
        recovered: Rows of the model in the recovery table.
        joint: Draws before and after recovery (`joint_draws`). Without draws there are no intervals.
    """
    ratio_of_row = recovered["pruning_ratio"].map(ratio_key)
    return {
        "model": model.model,
        "level": CONFIDENCE_LEVEL,
        "source": joint.draws.before.source if joint.draws else None,
        **reason_fields(joint.reason),
        "by_ratio": {
            ratio_key(ratio): _compare_at_ratio(model, recovered[ratio_of_row == ratio_key(ratio)], joint.draws)
            for ratio in ratios_of(recovered["pruning_ratio"])
        },
    }


def joint_draws(
    model: ModelRows, recovered: pd.DataFrame, evaluations: pd.DataFrame, samples: SamplesReaders,
    before: Bootstrap | None, *, seed: int,
) -> JointDraws:  # fmt: skip
    """Draw the accuracies after recovery on the same resampled documents as the accuracies before recovery.

    Args:
        model: Rows of the model in the experiments table.
        recovered: Rows of the model in the recovery table.
        evaluations: The evaluations table.
        samples: Functions that read the samples tables after recovery, by experiment.
        before: Draws of the accuracies before recovery; None if there are none.
        seed: Seed of `before`.

    Raises:
        UserError: If the documents before and after recovery differ, or the documents do not give the mean accuracies
            of the recovery table.
    """
    after = recovered[
        (recovered["status"] == "ok") & recovered["experiment"].isin(before.experiments if before else [])
    ]
    names = [str(name) for name in after["experiment"] if name in samples]
    if before is None or before.source != "documents" or not names:
        return JointDraws(None, Message("no_documents"))
    rows = evaluations[evaluations["model"] == model.model]
    documents = correctness_of(model, rows, {name: samples[name] for name in names})
    if documents is None:
        return JointDraws(None, Message("no_documents"))
    check_means(documents, dict(zip(after["experiment"], after["acc_mean_after"], strict=True)))
    drawn = bootstrap(with_spread(documents), seed=seed, n_draws=len(before.draws))
    check_paired(before, drawn)
    # The draws before recovery were stored in float32. Round these likewise, so that equal accuracies stay equal.
    rounded = drawn.draws.astype(np.float32).astype(np.float64)
    return JointDraws(RecoveryDraws(before.select(names), replace(drawn, draws=rounded)), None)


def _compare_at_ratio(model: ModelRows, rows: pd.DataFrame, draws: RecoveryDraws | None) -> dict[str, Any]:
    text = model.texts[0] if model.texts else None
    at_ratio = model.at(float(rows["pruning_ratio"].iloc[0]))
    controls, stopped = (
        set(at_ratio.loc[of, "experiment"]) for of in (at_ratio["control"], at_ratio["invalid"] == STOPPED)
    )
    candidates = set(valid_rows(at_ratio)["experiment"])
    # Before recovery, an experiment that a race stopped has answered only some of the documents.
    comparable = rows.assign(acc_mean_before=rows["acc_mean_before"].where(~rows["experiment"].isin(stopped)))
    experiments = {
        str(row["experiment"]): {"control": row["experiment"] in controls, **_experiment_json(row, text, draws)}
        for row in comparable.to_dict("records")
    }
    not_compared = [name for name in experiments if name in stopped]
    names = [name for name, one in experiments.items() if one["acc_after"] is not None and name in candidates]
    of_candidates = _select_draws(draws, names)
    ranking, best = _ranking(experiments, names, of_candidates), _compare_best(model, rows, names, of_candidates)
    return {
        "pruning_ratio": float(rows["pruning_ratio"].iloc[0]),
        "text": text,
        "n": len(names),
        "n_candidates": len(candidates),
        "experiments": experiments,
        "ranking": None if ranking is None else _ranking_json(ranking),
        "best": best,
        "statements": to_json_list(
            [
                *_ranking_messages(ranking, len(names), len(candidates)),
                *_best_messages(best),
                *([Message("recovery_stopped", {"experiments": not_compared})] if not_compared else []),
            ]
        ),
    }


def _experiment_json(row: Mapping[Any, Any], text: str | None, draws: RecoveryDraws | None) -> dict[str, Any]:
    before, after = to_float(row["acc_mean_before"]), to_float(row["acc_mean_after"])
    own = _select_draws(draws, [str(row["experiment"])])
    change_draws = None if own is None else own.after.draws[:, 0] - own.before.draws[:, 0]
    return {
        "acc_before": before,
        "acc_after": after,
        "change": None if before is None or after is None else after - before,
        "change_interval": None if change_draws is None else to_plain_json(percentile_interval(change_draws)),
        "ppl_before": to_float(row[f"ppl_before_{text}"]) if text else None,
        "ppl_after": to_float(row[f"ppl_after_{text}"]) if text else None,
        "n_tokens": to_int(row["n_tokens"]),
        "n_trainable": to_int(row["n_trainable"]),
        "trained": to_str(row["trained"]),
        "distilled": None if row["distilled"] is pd.NA else bool(row["distilled"]),
        "seconds": to_float(row["seconds"]),
        "status": str(row["status"]),
        "note": to_str(row["note"]),
    }


def _select_draws(draws: RecoveryDraws | None, names: list[str]) -> RecoveryDraws | None:
    """Return the draws of some experiments; None if one of them has no draws."""
    if draws is None or not set(names) <= set(draws.before.experiments):
        return None
    return RecoveryDraws(draws.before.select(names), draws.after.select(names))


def _ranking(
    experiments: Mapping[str, Mapping[str, Any]], names: list[str], draws: RecoveryDraws | None
) -> Ranking | None:
    if len(names) < 2:
        return None
    before, after = ([experiments[name][key] for name in names] for key in ("acc_before", "acc_after"))
    return compare_rankings(before, after, None if draws is None else (draws.before.draws, draws.after.draws))


def _ranking_json(ranking: Ranking) -> dict[str, Any]:
    fields = ("n", "tau", "p", "smallest_p", "interval", "level")
    return {field: to_plain_json(getattr(ranking, field)) for field in fields} | reason_fields(ranking.reason)


def _compare_best(
    model: ModelRows, rows: pd.DataFrame, names: list[str], draws: RecoveryDraws | None
) -> dict[str, Any] | None:
    """Compare the best experiment before recovery with the best after recovery, among the recovered experiments."""
    if len(names) < 2:
        return None
    before = model.experiments[model.experiments["experiment"].isin(names)].set_index("experiment", drop=False)
    recovered = rows.set_index("experiment").loc[before.index]
    ppl = {f"ppl_{text}": recovered[f"ppl_after_{text}"] for text in model.texts}
    first, second = (
        best_row(frame, model.texts) for frame in (before, before.assign(acc_mean=recovered["acc_mean_after"], **ppl))
    )
    if first is None or second is None:
        raise UserError(f"recovery: no experiment of {', '.join(names)} counts; recover others")
    old, new = str(first["experiment"]), str(second["experiment"])
    accuracy = {str(name): float(value) for name, value in recovered["acc_mean_after"].items()}
    comparison = {"before": old, "after": new, "n": len(names), "difference": accuracy[new] - accuracy[old]}
    if draws is None:
        return comparison | {"interval": None, "told": None, "n_members": None}
    after = draws.after.draws
    in_set = confidence_set([accuracy[name] for name in names], after)
    difference_draws = after[:, names.index(new)] - after[:, names.index(old)]
    return comparison | {
        "interval": to_plain_json(percentile_interval(difference_draws)),
        "told": not bool(in_set.members[names.index(old)]),
        "n_members": in_set.n_members,
    }


def _ranking_messages(ranking: Ranking | None, n: int, n_candidates: int) -> list[Message]:
    if ranking is None:
        return [Message("ranking_none", {"n": n})]
    messages = []
    if ranking.tau is None or ranking.p is None or ranking.smallest_p is None:
        messages.append(Message("ranking_undefined", {"reason": ranking.reason or Message("no_spread")}))
    else:
        lower, upper = ranking.interval or (-1.0, 1.0)
        related = ranking.p <= 1 - CONFIDENCE_LEVEL and (lower > 0 or upper < 0)
        code = ("ranking_kept" if ranking.tau > 0 else "ranking_reversed") if related else "ranking_open"
        messages.append(Message(code, {"tau": ranking.tau, "n": ranking.n, "p": ranking.p}))
        if ranking.interval is not None:
            messages.append(Message("ranking_interval", {"lower": lower, "upper": upper, "level": ranking.level}))
        if ranking.smallest_p > 1 - CONFIDENCE_LEVEL:
            messages.append(Message("ranking_few", {"n": ranking.n, "p": ranking.smallest_p}))
    if n < n_candidates:
        messages.append(Message("ranking_part", {"n": n, "total": n_candidates}))
    return messages


def _best_messages(comparison: Mapping[str, Any] | None) -> list[Message]:
    if comparison is None:
        return []
    values = {key: comparison[key] for key in ("before", "after", "n", "difference")}
    if comparison["before"] == comparison["after"]:
        messages = [Message("best_stays", values)]
        return messages if comparison["n_members"] is None else [*messages, _members_message(comparison)]
    if comparison["interval"] is None:
        return [Message("best_changes", values)]
    lower, upper = comparison["interval"]
    code = "best_changes_told" if comparison["told"] else "best_changes_open"
    return [Message(code, values | {"lower": lower, "upper": upper})]


def _members_message(comparison: Mapping[str, Any]) -> Message:
    code = "best_stays_alone" if comparison["n_members"] == 1 else "best_stays_among"
    return Message(code, {"members": comparison["n_members"], "n": comparison["n"], "level": CONFIDENCE_LEVEL})
