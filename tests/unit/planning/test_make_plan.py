"""Making the plan of an experiment from the tables of importances and priors."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from espalier.errors import UserError
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.make_plan import PlanSettings, PlanSummary, make_plan, score_from_tables

# Two layers of one KV group (10 parameters), three MLP channels (4) and norms (6); 44 outside: 2 * 28 + 44 = 100.
SMALL = ModelSizes((LayerSizes(1, 10, 3, 4, 6),) * 2, other_params=44)
SELECTION = {
    "freeze_first_layers": 0, "freeze_last_layers": 0, "max_layer_ratio": 1.0, "collapse_below": 0.0,
    "mlp_multiple_of": 1,
}  # fmt: skip
METHOD = {
    "criterion": "taylor", "prior": "loss_increase", "scope": "none", "temperature": 1.0, "tau": None,
    "prior_floor": 1e-4, "normalise": "none", "allocation": "global",
}  # fmt: skip


def settings(ratio: float = 0.18, n_samples: int = 8, seed: int = 0, **method: Any) -> PlanSettings:
    return PlanSettings.from_params(
        {
            "method": METHOD | method, "selection": SELECTION, "pruning_ratio": ratio, "n_samples": n_samples,
            "seed": seed,
        }
    )  # fmt: skip


def importances(counts: tuple[int, ...] = (4, 8)) -> pa.Table:
    """Return unordered rows. With 8 samples, importance / cost is 0, 5, 1, 2 in layer 0 and 9, 3, 4, 1 in layer 1."""
    costs = [10, 4, 4, 4] * 2
    rows = [
        {
            "n_samples": n, "layer": index // 4, "block": "mlp" if index % 4 else "attention",
            "group": max(0, index % 4 - 1), "importance": float(score * costs[index] if n == 8 else 100 - score),
        }
        for n in counts
        for index, score in enumerate([0, 5, 1, 2, 9, 3, 4, 1])
    ]  # fmt: skip
    return pa.Table.from_pylist(rows[::-1])


def priors() -> pa.Table:
    loss = {"layer": (0.5, 0.25), "attention": (1.0, 2.0), "mlp": (3.0, 0.0)}
    rows = [
        {"n_samples": n, "layer": layer, "scope": scope, "loss_increase": values[layer], "cosine_distance": 7.0}
        for n in (4, 8)
        for scope, values in loss.items()
        for layer in (1, 0)
    ]
    return pa.Table.from_pylist(rows)


def test_a_plan_by_hand() -> None:
    # Budget 18: the KV group of layer 0 (10), then channel 1 of layer 0 and channel 2 of layer 1 (4 each).
    plan, summary = make_plan(SMALL, settings(), importances(), None)
    assert plan.kept_kv_groups == ((), (0,))
    assert plan.kept_mlp_channels == ((0, 2), (0, 1))
    assert summary == PlanSummary(
        pruning_ratio=0.18,
        removed_param_fraction=0.18,
        removed_params=18,
        extreme_pruning_layers=0,
        n_floored_priors=0,
    )


def test_only_the_units_of_the_method_are_removed() -> None:
    # Scores of channels: 5, 1, 2 in layer 0 and 3, 4, 1 in layer 1. Budget 18: four channels of 4.
    plan, summary = make_plan(SMALL, settings(units=["mlp_channel"]), importances(), None)
    assert plan.kept_kv_groups == ((0,), (0,))
    assert plan.kept_mlp_channels == ((0,), (1,))
    assert summary.removed_params == 16
    plan, summary = make_plan(SMALL, settings(units=["kv_group"]), importances(), None)
    assert plan.kept_kv_groups == ((), (0,))
    assert plan.kept_mlp_channels == ((0, 1, 2), (0, 1, 2))
    with pytest.raises(UserError, match=r"at most 24 can go; lower pruning_ratio to at most 0\.24"):
        make_plan(SMALL, settings(0.3, units=["mlp_channel"]), importances(), None)


def test_layers_are_scored_by_summed_importance_or_by_their_prior() -> None:
    # A layer has 28 parameters, so a ratio of 0.28 removes one. Importance: 0 + 20 + 4 + 8 = 32 in layer 0, and
    # 90 + 12 + 16 + 4 = 122 in layer 1. Layer priors: 0.5 and 0.25.
    layer = {"units": ["layer"]}
    _, scores, n_floored = score_from_tables(SMALL, settings(**layer), importances(), None)
    assert scores == pytest.approx(np.array([32, 122]) / 28)
    _, scores, _ = score_from_tables(SMALL, settings(**layer, scope="layer", temperature=2), importances(), priors())
    assert scores == pytest.approx(np.array([32, 122]) / 28 * np.log([1.5, 1.25]) ** 2)
    by_prior = settings(0.28, **layer, scope="layer", criterion="constant")
    _, scores, _ = score_from_tables(SMALL, by_prior, None, priors())
    assert scores == pytest.approx(np.log([1.5, 1.25]))
    _, scores, n_floored = score_from_tables(
        SMALL, settings(**layer, scope="layer", criterion="constant", prior_floor=0.3), None, priors()
    )
    assert scores == pytest.approx(np.log([1.5, 1.3]))
    assert n_floored == 1
    _, scores, _ = score_from_tables(SMALL, settings(**layer, criterion="random", seed=3), None, None)
    assert scores == pytest.approx(np.random.default_rng(3).random(2))  # one draw per layer
    assert make_plan(SMALL, settings(0.28, **layer), importances(), None)[0].removed_layers == (0,)
    plan, summary = make_plan(SMALL, by_prior, None, priors())
    assert plan.removed_layers == (1,)
    assert (summary.pruning_ratio, summary.removed_param_fraction, summary.removed_params) == (0.28, 0.28, 28)


def test_a_plan_of_one_shape() -> None:
    # Each layer may lose 8 of 22 parameters: two channels. The only KV group stays.
    plan, _ = make_plan(SMALL, settings(0.16, allocation="same_shape"), importances(), None)
    assert plan.n_kept_kv_groups == (1, 1)
    assert plan.kept_mlp_channels == ((0,), (1,))


def test_scores_take_the_priors_of_their_sample_count() -> None:
    _, scores, n_floored = score_from_tables(SMALL, settings(scope="block"), importances(), priors())
    factors = [math.log(2), *[math.log(4)] * 3, math.log(3), *[math.log(1.0001)] * 3]
    assert scores == pytest.approx(np.array([0, 5, 1, 2, 9, 3, 4, 1]) * factors)
    assert n_floored == 1  # the MLP of layer 1
    other = score_from_tables(SMALL, settings(scope="block", prior="cosine_distance"), importances(), priors())
    assert other.scores == pytest.approx(np.array([0, 5, 1, 2, 9, 3, 4, 1]) * math.log(8))


def test_a_random_score_is_the_plain_draw() -> None:
    _, scores, _ = score_from_tables(SMALL, settings(criterion="random", seed=3), None, None)
    assert scores == pytest.approx(np.random.default_rng(3).random(8))


def test_a_criterion_that_reads_no_text_has_one_sample_count() -> None:
    table = importances((8,)).set_column(0, "n_samples", pa.array([0] * 8))
    _, scores, _ = score_from_tables(SMALL, settings(criterion="magnitude", n_samples=64), table, None)
    assert scores.tolist() == [0, 5, 1, 2, 9, 3, 4, 1]


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="0 groups with n_samples 16, but the model has 8; delete the"):
        make_plan(SMALL, settings(n_samples=16), importances(), None)
    with pytest.raises(UserError, match="8 groups with n_samples 8, but the model has 4"):
        make_plan(ModelSizes(SMALL.layers[:1], 0), settings(), importances(), None)
    with pytest.raises(ValueError, match="taylor needs an importance table"):
        make_plan(SMALL, settings(), None, None)
