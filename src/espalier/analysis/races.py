"""The race of a model at one pruning ratio: how far each experiment went, and what stopped it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.evidence import CommonDocuments
from espalier.analysis.message_json import to_plain_json
from espalier.analysis.selection import is_raced, raced_rows, to_int, to_str
from espalier.naming import BASELINE
from espalier.statistics.confidence_set import ConfidenceSet
from espalier.statistics.levels import after_stopping
from espalier.statistics.set_margin import SET_LEVEL, set_margin
from espalier.statistics.validation import TIE


def race_json(rows: pd.DataFrame, common: CommonDocuments | None = None) -> dict[str, Any]:
    """Return the race under the key `race`, or an empty mapping if nothing was raced.

    Args:
        rows: Experiments of the model at this ratio.
        common: Documents that all experiments of the race answered; None if single documents are not known.

    Returns:
        `keep` (what the race promises), `documents_share` (documents that all experiments together answered, as a share
        of those of the full grid; null if no experiment answered all), `experiments`, those that went furthest
        first, with `acc_mean` on the documents that they answered, `n_documents`, `rung`, `stopped_by` (null for a
        survivor) and `path` (number of documents and accuracy after the rungs), and `common`: the documents that all
        experiments answered (null if unknown), and the accuracies on them.
    """
    if not is_raced(rows):
        return {}
    raced = rows[rows["race_keep"].notna()].sort_values(
        ["race_n_documents", "acc_mean"], ascending=False, kind="stable"
    )
    survivors = raced[raced["race_stopped_by"].isna()]
    full_grid = len(raced) * int(raced["race_n_documents"].max())
    paths = {} if common is None else common.paths
    return {
        "race": {
            "keep": str(raced["race_keep"].iloc[0]),
            "documents_share": None if survivors.empty else int(raced["race_n_documents"].sum()) / full_grid,
            "experiments": {
                str(row["experiment"]): {
                    "acc_mean": None if pd.isna(row["acc_mean"]) else float(row["acc_mean"]),
                    "n_documents": int(row["race_n_documents"]),
                    "rung": int(row["race_rung"]),
                    "stopped_by": to_str(row["race_stopped_by"]),
                    "path": [[n, accuracy] for n, accuracy in paths.get(str(row["experiment"]), ())],
                }
                for row in raced.to_dict("records")
            },
            "common": None if common is None else _common_json(rows, common),
        }
    }


def level_after_race(level: float, rows: pd.DataFrame) -> float:
    """Return the level of statements on the documents that all experiments answered; `level` itself without a race.

    Args:
        level: Level of statements on all documents.
        rows: Experiments of a model, at one or several pruning ratios.
    """
    if not is_raced(rows):
        return level
    known = raced_rows(rows)
    known = known[known["race_rung"].notna()]
    if known.empty:
        return level
    # A survivor has answered the last rung. Without one, there is at least one more rung.
    n_rungs = int(known["race_rung"].max()) + int(known["race_stopped_by"].notna().all())
    return after_stopping(level, int(known["race_rung"].min()), n_rungs)


def common_documents_json(common: CommonDocuments | None) -> dict[str, Any]:
    """Return the numbers of documents under the key `common_documents`, or an empty mapping without a race."""
    if common is None:
        return {}
    return {
        "common_documents": {"n_documents": common.documents.n_documents, "n_all": sum(common.n_all.values())}
    }  # fmt: skip


def _common_json(rows: pd.DataFrame, common: CommonDocuments) -> dict[str, Any]:
    """Return the numbers of common documents, and the experiments on them, best first."""
    compared = {str(row["experiment"]): row for row in raced_rows(rows).to_dict("records")}
    intervals = dict(zip(common.draws.experiments, common.draws.intervals(), strict=True))
    widths = [float(intervals[name][1] - intervals[name][0]) for name in compared]
    ordered = sorted(((common.accuracy[name], name) for name in compared), key=lambda one: (-one[0], one[1]))
    return {
        "n_documents": common.documents.n_documents,
        "n_all": sum(common.n_all.values()),
        "tasks": {task.task: task.n_documents for task in common.documents.tasks},
        "baseline": common.accuracy.get(BASELINE),
        "half_width": max(widths) / 2,
        "experiments": {
            name: {
                "method": str(compared[name]["method"]),
                "control": bool(compared[name]["control"]),
                "taylor_seq_len": to_int(compared[name]["taylor_seq_len"]),
                "taylor_num_samples": to_int(compared[name]["taylor_num_samples"]),
                "acc_mean": accuracy,
                "interval": to_plain_json(intervals[name]),
            }
            for accuracy, name in ordered
        },
    }


def race_set(rows: pd.DataFrame, names: Sequence[str], common: CommonDocuments) -> ConfidenceSet | None:
    """Return the simultaneous set of the full grid after a race; None unless the race kept it.

    The margin is an upper bound of the critical value of the full grid, from the documents that all candidates
    answered, as in the race. So the set contains all members of the full grid's set, and perhaps more. A stopped
    experiment is outside.

    Args:
        rows: Experiments of the model at one ratio.
        names: Candidates, those that the race stopped included.
        common: Documents that all of them answered.
    """
    by_name = rows.set_index("experiment")
    if any(keep != "set" for keep in by_name["race_keep"].dropna()):
        return None
    documents = common.documents.select(names)
    margin = set_margin(
        np.array([task.weight for task in documents.tasks]),
        np.array([common.n_all[task.task] for task in documents.tasks]),
        [task.correct for task in documents.tasks],
    )
    stopped = by_name.loc[list(names), "race_stopped_by"].notna().to_numpy()
    accuracy = by_name.loc[list(names), "acc_mean"].to_numpy(dtype=np.float64)
    deficit = accuracy[~stopped].max() - accuracy
    members = ~stopped & (deficit <= margin + TIE)
    critical = np.full(len(names), margin)
    # The deficit of a stopped experiment rests on other documents than the best's, so it is not known.
    return ConfidenceSet(SET_LEVEL, np.where(stopped, np.nan, deficit), critical, members, margin, members, SET_LEVEL)
