"""Scores worked out by hand, for two layers of one KV group (cost 8) and two MLP channels (cost 2)."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import GroupTable
from espalier.planning.scores import PriorColumns, ScoreSettings, score_groups

GROUPS = GroupTable.of(ModelSizes((LayerSizes(1, 8, 2, 2, 4),) * 2, 10))
IMPORTANCE = np.array([16.0, 1, 3, 8, 0, 6])
BASE = [2, 0.5, 1.5, 1, 0, 3]  # 16/8, 1/2, 3/2; 8/8, 0/2, 6/2


def prior(b: float) -> float:
    """Return the prior for which B = ln(1 + prior) is `b`."""
    return math.expm1(b)


def priors(layer: list[float], attention: list[float], mlp: list[float]) -> PriorColumns:
    return PriorColumns(*(np.array([prior(b) for b in column]) for column in (layer, attention, mlp)))


PRIORS = priors(layer=[2, 3], attention=[5, 7], mlp=[11, 13])


def scores(settings: ScoreSettings, priors: PriorColumns | None = PRIORS) -> NDArray[np.float64]:
    return score_groups(GROUPS, IMPORTANCE, settings, priors)[0]


def test_scope_none_uses_no_prior() -> None:
    for temperature in (0.0, 2.0):
        result, n_floored = score_groups(GROUPS, IMPORTANCE, ScoreSettings(temperature=temperature))
        assert (result.tolist(), n_floored) == (BASE, 0)


def test_scope_layer_multiplies_by_the_layers_prior() -> None:
    np.testing.assert_allclose(scores(ScoreSettings("layer")), [4, 1, 3, 3, 0, 9])  # * 2 and * 3


def test_scope_block_multiplies_by_the_blocks_prior() -> None:
    np.testing.assert_allclose(scores(ScoreSettings("block")), [10, 5.5, 16.5, 7, 0, 39])  # * 5, 11 and * 7, 13


def test_temperature_is_an_exponent() -> None:
    np.testing.assert_allclose(scores(ScoreSettings("layer", temperature=2)), [8, 2, 6, 9, 0, 27])  # * 4 and * 9
    assert scores(ScoreSettings("block", temperature=0)).tolist() == BASE


def test_gated_layers_under_the_quantile_take_the_layer_prior() -> None:
    # The median of the layers' priors lies between them: layer 0 takes 2; layer 1 takes 7 and 13.
    np.testing.assert_allclose(scores(ScoreSettings("gated", tau=0.5)), [4, 1, 3, 7, 0, 39])


def test_gate_is_strict() -> None:
    # The 0-quantile is the smallest prior: no layer is under it. The 1-quantile is the largest: layer 1 is not.
    np.testing.assert_allclose(scores(ScoreSettings("gated", tau=0)), scores(ScoreSettings("block")))
    np.testing.assert_allclose(scores(ScoreSettings("gated", tau=1)), scores(ScoreSettings("gated", tau=0.5)))


def test_gate_compares_floored_priors() -> None:
    low = PriorColumns(np.array([-1.0, 0]), np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    settings = ScoreSettings("gated", tau=1)  # both layers are floored to 1e-4, neither is under the other
    result, n_floored = score_groups(GROUPS, IMPORTANCE, settings, low)
    np.testing.assert_allclose(result, np.array(BASE) * math.log(1.5))
    assert n_floored == 0


@pytest.mark.parametrize(
    ("within", "shares"),
    [
        ("layer", [16 / 20, 1 / 20, 3 / 20, 8 / 14, 0, 6 / 14]),
        ("block", [1, 1 / 4, 3 / 4, 1, 0, 1]),
    ],
)
def test_normalise_divides_by_the_sum_before_the_cost(within: str, shares: list[float]) -> None:
    expected = np.array(shares) / [8, 2, 2, 8, 2, 2]
    np.testing.assert_allclose(scores(ScoreSettings(normalise=within)), expected)


def test_normalise_leaves_a_sum_of_zero() -> None:
    importance = np.array([16.0, 0, 0, 0, 0, 0])
    for within in ("layer", "block"):
        result, _ = score_groups(GROUPS, importance, ScoreSettings(normalise=within))
        assert result.tolist() == [1 / 8, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "n_floored"),
    [
        (ScoreSettings("layer", prior_floor=0.1), 1),
        (ScoreSettings("block", prior_floor=0.1), 3),
        (ScoreSettings("gated", tau=1, prior_floor=0.1), 2),  # layer prior of layer 0, attention of layer 1
        (ScoreSettings("none", prior_floor=0.1), 0),
    ],
)
def test_low_priors_are_raised_and_counted(settings: ScoreSettings, n_floored: int) -> None:
    low = PriorColumns(np.array([-0.5, 0.2]), np.array([0.0, 0.05]), np.array([0.01, 0.5]))
    result, counted = score_groups(GROUPS, IMPORTANCE, settings, low)
    assert counted == n_floored
    if settings.scope == "layer":  # layer 0: ln(1 + 0.1), layer 1: ln(1 + 0.2)
        np.testing.assert_allclose(result[[0, 5]], [2 * math.log(1.1), 3 * math.log(1.2)])


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, math.nan, "importance of layer 0, KV group 0 is nan"),
        (4, -1.0, r"importance of layer 1, MLP channel 0 is -1\.0"),
        (5, math.inf, "importance of layer 1, MLP channel 1 is inf"),
    ],
)
def test_bad_importance_is_refused_by_name(index: int, value: float, message: str) -> None:
    importance = IMPORTANCE.copy()
    importance[index] = value
    with pytest.raises(UserError, match=message):
        score_groups(GROUPS, importance, ScoreSettings())


def test_wrong_length_of_importance_is_refused() -> None:
    with pytest.raises(UserError, match=r"4 importances are given for 6 groups; .* layer 1, MLP channel 0"):
        score_groups(GROUPS, IMPORTANCE[:4], ScoreSettings())
    with pytest.raises(UserError, match="7 importances are given for 6 groups; collect"):
        score_groups(GROUPS, np.ones(7), ScoreSettings())


def test_missing_and_bad_priors_are_refused() -> None:
    with pytest.raises(UserError, match="scope 'layer' needs priors"):
        scores(ScoreSettings("layer"), None)
    with pytest.raises(UserError, match="3 mlp priors are given for 2 layers"):
        scores(ScoreSettings("layer"), priors([1, 1], [1, 1], [1, 1, 1]))
    with pytest.raises(UserError, match="attention prior of layer 1 is nan"):
        scores(ScoreSettings("layer"), priors([1, 1], [1, math.nan], [1, 1]))


def test_gated_without_tau_is_refused() -> None:
    with pytest.raises(UserError, match="scope 'gated' needs tau"):
        scores(ScoreSettings("gated"))


def test_overflow_is_refused() -> None:
    with pytest.raises(UserError, match="scores overflow at temperature 1000; lower"):
        scores(ScoreSettings("block", temperature=1000))
