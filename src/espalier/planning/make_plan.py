"""Make the plan of one experiment from its importance and prior tables. Does not import torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.architecture import EXPERT, GROUP_UNITS, LAYER
from espalier.models.sizes import ModelSizes
from espalier.planning.criteria import CRITERIA
from espalier.planning.depth import layer_costs, select_layers
from espalier.planning.experts import ChannelOrder, expert_table, options_for, select_experts
from espalier.planning.groups import UNIT_BLOCKS, GroupTable
from espalier.planning.plan import Plan
from espalier.planning.same_shape import select_same_shape
from espalier.planning.scores import PriorColumns, ScoreSettings, score_groups, score_layers
from espalier.planning.select import Allocation, SelectionOptions, select_groups


@dataclass(frozen=True)
class PlanSettings:
    """Settings of a plan.

    Attributes:
        criterion: Name of the criterion.
        prior: Which measurement of a removed block is the prior.
        score: How importances and priors are combined.
        allocation: Whether all layers compete, each loses the same share, or each keeps the same shape.
        selection: Constraints on what may be removed.
        pruning_ratio: Share of all parameters to remove.
        n_samples: Number of calibration sequences; None if the method reads no text.
        seed: Seed of a group criterion, or of the calibration set; None if the method uses neither.
        units: Names of the units to remove.
        contiguous: Whether removed layers are consecutive.
    """

    criterion: str
    prior: Literal["loss_increase", "cosine_distance"]
    score: ScoreSettings
    allocation: Allocation
    selection: SelectionOptions
    pruning_ratio: float
    n_samples: int | None
    seed: int | None
    units: tuple[str, ...] = GROUP_UNITS
    contiguous: bool = False

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> PlanSettings:
        """Read the params of the rule `plan`, which the recipe of a plan repeats."""
        method = params["method"]
        return cls(
            criterion=method["criterion"],
            prior=method["prior"],
            score=ScoreSettings(**{field.name: method[field.name] for field in fields(ScoreSettings)}),
            allocation=method["allocation"],
            selection=SelectionOptions(**params["selection"]),
            pruning_ratio=params["pruning_ratio"],
            n_samples=params["n_samples"],
            seed=params["seed"],
            # Params and recipes leave out these two at their defaults.
            units=tuple(method.get("units", GROUP_UNITS)),
            contiguous=method.get("contiguous", False),
        )


@dataclass(frozen=True)
class PlanSummary:
    """Numbers that describe a plan, as `plan.json` holds them.

    Attributes:
        pruning_ratio: Requested share of all parameters.
        removed_param_fraction: Achieved share.
        removed_params: Number of removed parameters.
        extreme_pruning_layers: Number of layers whose MLP lost more than half of its channels.
        n_floored_priors: Number of priors raised to the floor.
    """

    pruning_ratio: float
    removed_param_fraction: float
    removed_params: int
    extreme_pruning_layers: int
    n_floored_priors: int


class ScoredGroups(NamedTuple):
    """All groups of a model, with the scores of the units.

    Attributes:
        groups: The groups; if experts are removed, the experts.
        scores: Score of each group, (n_groups,); if whole layers are removed, of each layer, (n_layers,).
        n_floored_priors: Number of priors raised to the floor.
    """

    groups: GroupTable
    scores: NDArray[np.float64]
    n_floored_priors: int


def make_plan(
    sizes: ModelSizes,
    settings: PlanSettings,
    importance: pa.Table | None,
    priors: pa.Table | None,
    kv_group_counts: Collection[int] | None = None,
) -> tuple[Plan, PlanSummary]:
    """Score all units and select those to remove.

    Args:
        sizes: Sizes of the model.
        settings: Settings of the plan.
        importance: Importance table of the criterion (`espalier.tables.Importance`); None for a group criterion.
        priors: Prior table (`espalier.tables.PriorTable`); None if the method uses no priors.
        kv_group_counts: Numbers of KV groups that a layer may keep with allocation `same_shape`; None allows all.

    Raises:
        UserError: If the request is infeasible, or a table does not have the sample count.
        ValueError: If the criterion needs an importance table and none is given.
    """
    (groups, scores, n_floored), order = _score(sizes, settings, importance, priors)
    if EXPERT in settings.units:
        experts = select_experts(groups, sizes, scores, settings.pruning_ratio, settings.selection)
        plan = Plan.without_experts(groups, sizes, experts)
    elif LAYER in settings.units:
        removed_layers = select_layers(
            sizes, scores, settings.pruning_ratio, settings.selection, contiguous=settings.contiguous
        )
        plan = Plan.without_layers(sizes, removed_layers)
    else:
        removed = _select_groups(groups, sizes, scores, settings, kv_group_counts)
        plan = Plan.from_mask(groups, sizes, removed, order)
    return plan, PlanSummary(
        pruning_ratio=settings.pruning_ratio,
        removed_param_fraction=plan.removed_param_fraction(sizes),
        removed_params=plan.removed_params(sizes),
        extreme_pruning_layers=plan.extreme_pruning_layers,
        n_floored_priors=n_floored,
    )


def score_from_tables(
    sizes: ModelSizes, settings: PlanSettings, importance: pa.Table | None, priors: pa.Table | None
) -> ScoredGroups:
    """Score all groups, layers or experts; `make_plan` describes the arguments and errors."""
    return _score(sizes, settings, importance, priors)[0]


def _score(
    sizes: ModelSizes, settings: PlanSettings, importance: pa.Table | None, priors: pa.Table | None
) -> tuple[ScoredGroups, ChannelOrder | None]:
    """Score all groups, layers or experts.

    The second value is the order of the channels of experts, which the MLP channels of their layers are numbered by;
    None if no expert loses channels.
    """
    if EXPERT in settings.units:
        return _score_experts(sizes, settings, importance), None
    groups = GroupTable.of(sizes)
    criterion = CRITERIA[settings.criterion]
    removes_layers = LAYER in settings.units
    order = None
    if criterion.of_groups is not None:
        units = _group_per_layer(sizes) if removes_layers else groups
        values = criterion.of_groups(units.cost, settings.seed or 0)
        if sizes.has_experts and not removes_layers:
            order = _any_order(sizes, settings.seed or 0)
    elif importance is not None:
        values, order = _importance_of(importance, settings.n_samples if criterion.reads_text else 0, sizes)
    else:
        raise ValueError(f"criterion {settings.criterion} needs an importance table")
    prior = None if priors is None else _priors_of(priors, settings.n_samples, settings.prior)
    if not removes_layers:
        return ScoredGroups(groups, *score_groups(groups, values, settings.score, prior)), order
    summed = groups if criterion.of_groups is None else _group_per_layer(sizes)
    return ScoredGroups(groups, *score_layers(summed, values, layer_costs(sizes), settings.score, prior)), None


def _score_experts(sizes: ModelSizes, settings: PlanSettings, importance: pa.Table | None) -> ScoredGroups:
    """Score all experts."""
    experts, criterion = expert_table(sizes), CRITERIA[settings.criterion]
    if criterion.of_groups is not None:
        values = criterion.of_groups(experts.cost, settings.seed or 0)
    elif importance is not None:
        rows = _rows_of(importance, settings.n_samples if criterion.reads_text else 0, ("experts",), len(experts))
        values = rows["importance"].to_numpy()
    else:
        raise ValueError(f"criterion {settings.criterion} needs an importance table")
    return ScoredGroups(experts, *score_groups(experts, values, settings.score))


def _select_groups(
    groups: GroupTable,
    sizes: ModelSizes,
    scores: NDArray[np.float64],
    settings: PlanSettings,
    kv_group_counts: Collection[int] | None,
) -> NDArray[np.bool_]:
    """Select among the groups that are units of the method, and return the mask over all groups."""
    chosen = np.isin(groups.block, [UNIT_BLOCKS[unit] for unit in settings.units])
    # The parameters of all other groups count as fixed, so selection does not see these groups.
    sizes, scores = sizes.with_groups_of(settings.units), scores[chosen]
    units = GroupTable.of(sizes)
    ratio, options = settings.pruning_ratio, options_for(sizes, settings.selection)
    removed = np.zeros(len(groups), dtype=bool)
    if settings.allocation == "same_shape":
        removed[chosen] = select_same_shape(units, sizes, scores, ratio, options, kv_group_counts)
    else:
        removed[chosen] = select_groups(units, sizes, scores, ratio, options, settings.allocation)
    return removed


def _group_per_layer(sizes: ModelSizes) -> GroupTable:
    """Return a table in which each layer is one group, for criteria that compute the importance from the cost."""
    n = sizes.n_layers
    return GroupTable(
        n_layers=n,
        layer=np.arange(n, dtype=np.int32),
        block=np.zeros(n, dtype=np.int8),
        group=np.zeros(n, dtype=np.int32),
        cost=layer_costs(sizes),
    )


def _importance_of(
    table: pa.Table, n_samples: int | None, sizes: ModelSizes
) -> tuple[NDArray[np.float64], ChannelOrder | None]:
    """Return the importances of one sample count, in the order (layer, block, group), attention first.

    For a model with experts, the second value is the order of the channels of experts, which MLP channels are numbered
    by.
    """
    n_rows = sum(layer.n_kv_groups + layer.n_mlp_channels * max(1, layer.n_experts) for layer in sizes.layers)
    rows = _rows_of(table, n_samples, ("attention", "mlp"), n_rows)
    values: NDArray[np.float64] = rows["importance"].to_numpy()
    if not sizes.has_experts:
        return values, None
    counts = [n for layer in sizes.layers for n in (layer.n_kv_groups, layer.n_mlp_channels * max(1, layer.n_experts))]
    blocks = np.split(values, np.cumsum(counts)[:-1])
    order = ChannelOrder(sizes, blocks[1::2])
    joined = [values for pair in zip(blocks[0::2], order.importance, strict=True) for values in pair]
    return np.concatenate(joined), order


def _any_order(sizes: ModelSizes, seed: int) -> ChannelOrder:
    """Return an order of the channels of experts for criteria that know only costs."""
    generator = np.random.default_rng(seed)
    counts = [layer.n_mlp_channels * max(1, layer.n_experts) for layer in sizes.layers]
    return ChannelOrder(sizes, [generator.random(n) for n in counts])


def _rows_of(table: pa.Table, n_samples: int | None, blocks: Collection[str], n_rows: int) -> pa.Table:
    """Return the rows of some blocks and one sample count, sorted by layer, block and group."""
    rows = table.filter(pc.equal(table["n_samples"], n_samples))
    rows = rows.filter(pc.is_in(rows["block"], pa.array(list(blocks), rows["block"].type)))
    rows = rows.sort_by([("layer", "ascending"), ("block", "ascending"), ("group", "ascending")])
    if len(rows) != n_rows:
        raise UserError(
            f"importance: {len(rows)} groups with n_samples {n_samples}, but the model has {n_rows}; delete the "
            "importance table and run again"
        )
    return rows


def _priors_of(table: pa.Table, n_samples: int | None, measure: str) -> PriorColumns:
    def column(scope: str) -> NDArray[np.float64]:
        chosen = pc.and_(pc.equal(table["n_samples"], n_samples), pc.equal(table["scope"], scope))
        values: NDArray[np.float64] = table.filter(chosen).sort_by("layer")[measure].to_numpy()
        return values

    return PriorColumns(column("layer"), column("attention"), column("mlp"))
