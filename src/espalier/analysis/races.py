"""The race of a model at one pruning ratio: how far each experiment went, and what stopped it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from espalier.analysis.selection import is_raced


def race_json(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the race under the key `race`, or an empty mapping if nothing was raced.

    Args:
        rows: Experiments of the model at this ratio.

    Returns:
        `keep` (what the race promises), `documents_share` (documents that all experiments together answered, as a share
        of those of the full grid; null if no experiment answered all) and `experiments`, those that went furthest
        first, with `acc_mean` on the documents that they answered, `n_documents`, `rung` and `stopped_by` (null for a
        survivor).
    """
    if not is_raced(rows):
        return {}
    raced = rows[rows["race_keep"].notna()].sort_values(
        ["race_n_documents", "acc_mean"], ascending=False, kind="stable"
    )
    survivors = raced[raced["race_stopped_by"].isna()]
    full_grid = len(raced) * int(raced["race_n_documents"].max())
    return {
        "race": {
            "keep": str(raced["race_keep"].iloc[0]),
            "documents_share": None if survivors.empty else int(raced["race_n_documents"].sum()) / full_grid,
            "experiments": {
                str(name): {
                    "acc_mean": None if pd.isna(accuracy) else float(accuracy),
                    "n_documents": int(n_documents),
                    "rung": int(rung),
                    "stopped_by": None if pd.isna(stopped_by) else str(stopped_by),
                }
                for name, accuracy, n_documents, rung, stopped_by in raced[
                    ["experiment", "acc_mean", "race_n_documents", "race_rung", "race_stopped_by"]
                ].itertuples(index=False)
            },
        }
    }
