"""Make the plan of one experiment from its importance and prior tables. Does not import torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.sizes import ModelStructure
from espalier.planning.criteria import CRITERIA
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan
from espalier.planning.scores import PriorColumns, ScoreSettings, score_groups
from espalier.planning.select import SelectionOptions, select

SCORE_KEYS = ("scope", "temperature", "tau", "prior_floor", "normalise")


def make_plan(
    structure: ModelStructure,
    settings: dict[str, Any],
    importance: pa.Table | None,
    priors: pa.Table | None,
) -> tuple[Plan, dict[str, Any]]:
    """Score all groups and select those to remove.

    Args:
        structure: Sizes of the model.
        settings: `method` (as in the config), `selection`, `pruning_ratio`, `n_samples`, `seed`.
        importance: Importance table of the criterion (`espalier.tables.Importance`); None for a group criterion.
        priors: Prior table (`espalier.tables.PriorTable`); None if the method uses no priors.

    Returns:
        The plan and a summary: requested and achieved ratio, removed parameters, number of layers whose MLP lost more
        than half of its channels, and number of priors raised to the floor.

    Raises:
        UserError: If the request is infeasible, or a table does not have the sample count.
        ValueError: If the criterion needs an importance table and none is given.
    """
    groups, scores, n_floored = scored_groups(structure, settings, importance, priors)
    options = SelectionOptions(**settings["selection"])
    ratio = settings["pruning_ratio"]
    plan = Plan.from_mask(
        groups, structure, select(groups, structure, scores, ratio, options, settings["method"]["allocation"])
    )
    return plan, {
        "pruning_ratio": ratio,
        "removed_param_fraction": plan.removed_param_fraction(structure),
        "removed_params": plan.removed_params(structure),
        "extreme_pruning_layers": plan.extreme_pruning_layers,
        "n_floored_priors": n_floored,
    }


def scored_groups(
    structure: ModelStructure, settings: dict[str, Any], importance: pa.Table | None, priors: pa.Table | None
) -> tuple[GroupTable, NDArray[np.float64], int]:
    """Score all groups; `make_plan` describes the arguments and errors.

    Returns:
        The groups, their scores, (n_groups,), and the number of priors raised to the floor.
    """
    method, groups = settings["method"], GroupTable.of(structure)
    criterion = CRITERIA[method["criterion"]]
    if criterion.of_groups is not None:
        values = criterion.of_groups(groups.cost, settings["seed"])
    elif importance is not None:
        values = _importance_of(importance, settings["n_samples"] if criterion.reads_text else 0, len(groups))
    else:
        raise ValueError(f"criterion {method['criterion']} needs an importance table")
    prior = None if priors is None else _priors_of(priors, settings["n_samples"], method["prior"])
    scores, n_floored = score_groups(groups, values, ScoreSettings(**{key: method[key] for key in SCORE_KEYS}), prior)
    return groups, scores, n_floored


def _importance_of(table: pa.Table, n_samples: int, n_groups: int) -> NDArray[np.float64]:
    """Return the importances of one sample count, in the order (layer, block, group), attention first."""
    rows = table.filter(pc.equal(table["n_samples"], n_samples))
    rows = rows.sort_by([("layer", "ascending"), ("block", "ascending"), ("group", "ascending")])
    if len(rows) != n_groups:
        raise UserError(
            f"importance: {len(rows)} groups with n_samples {n_samples}, but the model has {n_groups}; delete the "
            "importance table and run again"
        )
    values: NDArray[np.float64] = rows["importance"].to_numpy()
    return values


def _priors_of(table: pa.Table, n_samples: int, measure: str) -> PriorColumns:
    def column(scope: str) -> NDArray[np.float64]:
        chosen = pc.and_(pc.equal(table["n_samples"], n_samples), pc.equal(table["scope"], scope))
        values: NDArray[np.float64] = table.filter(chosen).sort_by("layer")[measure].to_numpy()
        return values

    return PriorColumns(column("layer"), column("attention"), column("mlp"))
