"""Selection of whole layers: cases by hand, and all subsets of small models."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.errors import UserError
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.depth import check_depth, layer_costs, select_layers
from espalier.planning.plan import Plan, kept_layers
from espalier.planning.select import SelectionOptions

# Five layers of 20 parameters (one KV group of 10, two channels of 4, norms of 2), and 100 outside: 200 in all.
SIZES = ModelSizes((LayerSizes(1, 10, 2, 4, 2),) * 5, other_params=100)
FREE = SelectionOptions()


def removed(
    scores: list[float], ratio: float, options: SelectionOptions = FREE, *, contiguous: bool = False
) -> list[int]:
    mask = select_layers(SIZES, np.array(scores, dtype=float), ratio, options, contiguous=contiguous)
    return np.flatnonzero(mask).tolist()


@pytest.mark.parametrize(
    ("ratio", "n_layers"),
    [
        (0.051, 1),  # a layer is 10%, so 5.1% is nearer to one layer than to none
        (0.14, 1),
        (0.15, 1),  # as near to one layer as to two: the smaller number
        (0.151, 2),
        (0.2, 2),
        (0.44, 4),  # 40% is nearest, and one layer stays
    ],
)
def test_the_nearest_number_of_layers_goes(ratio: float, n_layers: int) -> None:
    assert removed([3, 1, 4, 0, 2], ratio) == sorted([3, 1, 4, 0][:n_layers])


def test_ties_go_to_the_first_layer() -> None:
    assert removed([1, 0, 0, 0, 1], 0.2) == [1, 2]


def test_frozen_layers_stay() -> None:
    assert removed([0, 1, 4, 3, 2], 0.2, SelectionOptions(freeze_first_layers=1, freeze_last_layers=1)) == [1, 3]


def test_a_run_has_the_lowest_sum_of_scores() -> None:
    scores = [0, 9, 2, 3, 1]
    assert removed(scores, 0.2) == [0, 4]
    assert removed(scores, 0.2, contiguous=True) == [3, 4]  # sums: 9, 11, 5, 4
    assert removed(scores, 0.2, SelectionOptions(freeze_last_layers=1), contiguous=True) == [2, 3]
    assert removed([5, 5, 5, 5, 5], 0.3, contiguous=True) == [0, 1, 2]


def test_scores_of_a_run_count_by_the_size_of_its_layers() -> None:
    """Three runs have 50 parameters: layers 0 and 1, layer 2, layers 3 and 4."""
    layers = tuple(LayerSizes(0, 10, n, 1, 0) for n in (20, 30, 50, 20, 30))
    sizes = ModelSizes(layers, other_params=0)
    assert layer_costs(sizes).tolist() == [20, 30, 50, 20, 30]
    for scores, expected in (
        ([4.0, 1, 9, 1, 3.2], [0, 1]),  # 4 x 20 + 30 = 110 against 20 + 3.2 x 30 = 116
        ([4.0, 1, 9, 1, 2.9], [3, 4]),  # 107
        ([4.0, 1, 2.1, 1, 2.9], [2]),  # 105
    ):
        mask = select_layers(sizes, np.array(scores), 1 / 3, FREE, contiguous=True)
        assert np.flatnonzero(mask).tolist() == expected


@st.composite
def models(draw: st.DrawFn) -> tuple[ModelSizes, np.ndarray]:
    """Draw a model of up to six equal layers, and different scores, so that the best subset is unique."""
    n_layers = draw(st.integers(2, 6))
    layer = LayerSizes(1, draw(st.integers(1, 30)), 1, draw(st.integers(1, 9)), draw(st.integers(0, 5)))
    sizes = ModelSizes((layer,) * n_layers, draw(st.integers(1, 60)))
    return sizes, np.array(draw(st.permutations(range(n_layers))), dtype=float)


@given(model=models(), percent=st.integers(1, 99), contiguous=st.booleans())
def test_no_allowed_subset_is_nearer_or_has_lower_scores(
    model: tuple[ModelSizes, np.ndarray], percent: int, *, contiguous: bool
) -> None:
    """Of all subsets that leave a layer (runs, if contiguous): nearest to the ratio, fewest, lowest scores."""
    sizes, scores = model
    n, costs = sizes.n_layers, layer_costs(sizes)
    target = Fraction(percent, 100) * sizes.total_params
    subsets = [subset for size in range(n) for subset in combinations(range(n), size)]
    if contiguous:
        subsets = [subset for subset in subsets if not subset or subset[-1] - subset[0] == len(subset) - 1]

    def rank(subset: tuple[int, ...]) -> tuple[Fraction, int, float]:
        n_params = int(costs[list(subset)].sum())
        return abs(n_params - target), n_params, sum(scores[list(subset)])

    best = min(subsets, key=rank)
    wants_all = 2 * (target - (n - 1) * int(costs[0])) > int(costs[0])
    if not best or wants_all:
        with pytest.raises(UserError, match="pruning_ratio"):
            check_depth(sizes, percent / 100, FREE)
        return
    found = np.flatnonzero(select_layers(sizes, scores, percent / 100, FREE, contiguous=contiguous))
    assert rank(tuple(found.tolist())) == rank(best)
    assert abs(int(costs[found].sum()) - target) <= Fraction(int(costs[0]), 2)


@given(
    costs=st.lists(st.integers(3, 40), min_size=2, max_size=6), percent=st.integers(5, 60), contiguous=st.booleans(),
    data=st.data(),
)  # fmt: skip
def test_layers_of_different_sizes_miss_the_ratio_by_less_than_a_layer(
    costs: list[int], percent: int, data: st.DataObject, *, contiguous: bool
) -> None:
    sizes = ModelSizes(tuple(LayerSizes(1, 1, 1, 1, cost - 2) for cost in costs), other_params=20)
    scores = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(costs), max_size=len(costs))), dtype=float)
    try:
        check_depth(sizes, percent / 100, FREE)
    except UserError:
        return
    mask = select_layers(sizes, scores, percent / 100, FREE, contiguous=contiguous)
    assert not mask.all()
    assert abs(int(np.array(costs)[mask].sum()) - percent * sizes.total_params / 100) < max(costs)


def test_a_plan_counts_removed_layers_with_their_norms_and_is_read_back() -> None:
    mask = np.array([False, True, False, False, True])
    plan = Plan.without_layers(SIZES, mask)
    assert plan.removed_layers == (1, 4)
    assert plan.kept_layers == (0, 2, 3)
    assert plan.layer_params(SIZES) == (20, 0, 20, 20, 0)
    assert plan.removed_params(SIZES) == 40
    assert plan.removed_param_fraction(SIZES) == 0.2
    assert plan.extreme_pruning_layers == 2
    content = plan.to_dict()
    assert Plan.from_dict(content) == plan
    assert [layer.get("removed") for layer in content["layers"]] == [None, True, None, None, True]
    assert [tuple(layer) for layer in kept_layers(content)] == [
        (*kept, None) for kept in [(1, 2, False), (0, 0, True), (1, 2, False), (1, 2, False), (0, 0, True)]
    ]


def test_a_removed_layer_that_keeps_groups_is_refused() -> None:
    content = Plan.identity(SIZES).to_dict()
    content["layers"][2]["removed"] = True
    with pytest.raises(UserError, match=r"plan\.layers\[2\] is removed, but keeps groups; make the plan again"):
        Plan.from_dict(content)
    content["layers"][2]["removed"] = "yes"
    with pytest.raises(UserError, match=r"plan\.layers\[2\]\.removed is 'yes', not of type bool"):
        Plan.from_dict(content)


@pytest.mark.parametrize(
    ("ratio", "options", "message"),
    [
        (0.46, FREE, r"means removing 92 of 200 parameters, but at most 4 of 5 layers can go.*to at most 0\.45"),
        (0.5, FREE, r"at most 4 of 5 layers can go, 80 parameters; lower"),
        (0.3, SelectionOptions(2, 2), r"at most 1 of 5 layers can go, 20 parameters with freeze_first_layers 2, fr"),
        (0.3, SelectionOptions(3, 2), r"no layer may be removed with freeze_first_layers 3, freeze_last_layers 2"),
        (0.05, FREE, r"a layer has 20, so removing none is nearest; raise pruning_ratio above 0\.0500"),
        (0.2, SelectionOptions(max_layer_ratio=0.5), "max_layer_ratio 0.5 forbids removing whole layers"),
        (0.2, SelectionOptions(collapse_below=0.5), "collapse_below 0.5 has no effect on whole layers"),
    ],
)
def test_requests_that_whole_layers_cannot_meet_are_refused(
    ratio: float, options: SelectionOptions, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_depth(SIZES, ratio, options)
    with pytest.raises(UserError, match=message):
        select_layers(SIZES, np.zeros(5), ratio, options)


def test_scores_must_fit() -> None:
    with pytest.raises(ValueError, match="5 finite scores are needed"):
        select_layers(SIZES, np.zeros(4), 0.2, FREE)
