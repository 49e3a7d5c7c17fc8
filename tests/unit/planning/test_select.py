"""Selection: hand-worked cases, comparison with the reference implementation, and errors."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan
from espalier.planning.select import SelectionOptions, check_feasible, select_groups
from tests.unit.planning.reference import Case, cases, greedy, share_of

# Two layers of one KV group (10 parameters), three MLP channels (4) and norms (6); 44 outside: 2 * 28 + 44 = 100.
SMALL = ModelSizes((LayerSizes(1, 10, 3, 4, 6),) * 2, other_params=44)
#         KV  channels  KV  channels
SCORES = [0.0, 5, 1, 2, 9, 3, 4, 1]
FREE = SelectionOptions()
RATIOS = st.integers(0, 95).map(lambda percent: percent / 100)


def removed_rows(
    sizes: ModelSizes, scores: list[float], ratio: float, options: SelectionOptions = FREE, **settings: str
) -> list[int]:
    removed = select_groups(GroupTable.of(sizes), sizes, np.array(scores, dtype=float), ratio, options, **settings)
    return np.flatnonzero(removed).tolist()


def removed_params(case: Case, removed: NDArray[np.bool_]) -> int:
    return int(case.groups.cost[removed].sum())


def kept_by_layer(case: Case, removed: NDArray[np.bool_]) -> list[int]:
    groups = case.groups
    return [int(groups.cost[~removed & (groups.layer == index)].sum()) for index in range(groups.n_layers)]


def test_lowest_scores_go_and_ties_break_by_layer() -> None:
    # Budget 18 of 100: row 0 (10), row 2 (4), row 7 (4; ties with row 2, later layer) are exactly 18.
    assert removed_rows(SMALL, SCORES, 0.18) == [0, 2, 7]
    # With a budget of 17, the second of the tie does not fit, and neither does any other group.
    assert removed_rows(SMALL, SCORES, 0.175) == [0, 2]


def test_group_that_does_not_fit_is_passed_over() -> None:
    # Budget 9: the KV group of 10 is passed over; rows 2 and 7 fit, one parameter is left.
    assert removed_rows(SMALL, SCORES, 0.09) == [2, 7]


def test_ratio_zero_removes_nothing() -> None:
    assert removed_rows(SMALL, SCORES, 0) == []


def test_everything_prunable_may_go() -> None:
    assert removed_rows(SMALL, SCORES, 0.44) == list(range(8))  # 2 * (10 + 3 * 4) = 44


def test_ratio_is_the_decimal_that_was_written() -> None:
    # 0.29 * 100 is 28.999999999999996 in floating point; 29 channels of one parameter are meant.
    sizes = ModelSizes((LayerSizes(0, 1, 100, 1, 0),), 0)
    assert removed_rows(sizes, list(range(100)), 0.29) == list(range(29))


def test_frozen_layers_lose_nothing() -> None:
    # Layer 1 alone: row 7 (score 1), then row 5 (score 3).
    assert removed_rows(SMALL, SCORES, 0.08, SelectionOptions(freeze_first_layers=1)) == [5, 7]
    assert removed_rows(SMALL, SCORES, 0.08, SelectionOptions(freeze_last_layers=1)) == [2, 3]


def test_max_layer_ratio_passes_over_full_layers() -> None:
    # Half of 22 is 11 per layer. Layer 0 takes row 0 (10) and is full; layer 1 takes rows 7 and 5 (8).
    assert removed_rows(SMALL, SCORES, 0.18, SelectionOptions(max_layer_ratio=0.5)) == [0, 5, 7]


def test_what_a_layer_lost_counts_after_a_group_was_passed_over() -> None:
    # Budget 17, at most 11 of a layer. Rows 1 and 2 (8) go; row 4 (10) no longer fits. Row 3 would make 12 of layer 0.
    scores = [9, 0, 1, 3, 2, 5, 6, 7]
    assert removed_rows(SMALL, scores, 0.17, SelectionOptions(max_layer_ratio=0.5)) == [1, 2, 5, 6]


def test_a_layer_may_lose_exactly_its_limit() -> None:
    # Four channels of 5 in each of two layers; at most half of 20, which is two channels, though layer 0 scores lowest.
    sizes = ModelSizes((LayerSizes(0, 1, 4, 5, 0),) * 2, 0)
    assert removed_rows(sizes, list(range(8)), 0.5, SelectionOptions(max_layer_ratio=0.5)) == [0, 1, 4, 5]


def test_sparse_layers_collapse_and_the_rest_is_selected_again() -> None:
    # Layers of 10 channels of 1; budget 12 of 40. Scores take 8 of layer 0, 4 of layer 1, none of layer 2.
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0),) * 3, 10)
    scores = [*range(8), 90, 91, 8, 9, 10, 11, *[50] * 6, *[60] * 10]
    assert removed_rows(sizes, scores, 0.3) == [*range(8), *range(10, 14)]
    # Layer 0 would keep 0.2 < 0.3: it goes whole (10), and 2 are left for layer 1.
    assert removed_rows(sizes, scores, 0.3, SelectionOptions(collapse_below=0.3)) == [*range(10), 10, 11]
    # A share of 0.2 is not less than 0.2.
    assert removed_rows(sizes, scores, 0.3, SelectionOptions(collapse_below=0.2)) == [*range(8), *range(10, 14)]


def test_sparse_layer_that_does_not_fit_keeps_its_share() -> None:
    # Budget 9 of 30: layer 0 would keep 1 of 10, but removing it whole costs 10. It keeps 3; layer 1 gives 2.
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0),) * 2, 10)
    scores = [*range(10), *range(20, 30)]
    assert removed_rows(sizes, scores, 0.3, SelectionOptions(collapse_below=0.3)) == [*range(7), 10, 11]


def test_collapse_of_the_emptiest_layers_comes_first() -> None:
    # Budget 15 of 40: layers 0, 1 would keep 2 and 3 of 10. Layer 0 goes; layer 1 no longer fits but keeps 5 by score.
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0),) * 3, 10)
    scores = [*[0] * 8, 9, 9, *[1] * 7, 9, 9, 9, *[5] * 10]
    assert removed_rows(sizes, scores, 0.375, SelectionOptions(collapse_below=0.4)) == list(range(15))


def test_the_emptiest_layer_collapses_first_wherever_it_stands() -> None:
    # As before with the two layers exchanged: layer 1 goes, layer 0 gives 5.
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0),) * 3, 10)
    scores = [*[1] * 7, 9, 9, 9, *[0] * 8, 9, 9, *[5] * 10]
    expected = [*range(5), *range(10, 20)]
    assert removed_rows(sizes, scores, 0.375, SelectionOptions(collapse_below=0.4)) == expected


def test_a_share_counts_and_not_what_is_kept() -> None:
    # Layer 0 keeps 2 of 10 (0.2), layer 1 keeps 3 of 20 (0.15), both under 0.25, and 25 of 80 are to go. Layer 1 is the
    # emptier one and goes (20); the 5 left are the lowest of layer 0.
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0), LayerSizes(0, 1, 20, 1, 0)), 50)
    scores = [*range(8), 99, 99, *[1] * 17, 98, 98, 98]
    expected = [*range(5), *range(10, 30)]
    assert removed_rows(sizes, scores, 25 / 80, SelectionOptions(collapse_below=0.25)) == expected


def test_a_layer_may_take_the_whole_budget_with_it() -> None:
    # Budget 10 of 40: 8 of layer 0 and 2 of layer 1. Layer 0 would keep 0.2 < 0.3, and its 10 are just the budget.
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0),) * 2, 20)
    scores = [*range(8), 90, 91, 8, 9, *[50] * 8]
    assert removed_rows(sizes, scores, 0.25, SelectionOptions(collapse_below=0.3)) == list(range(10))


def test_uniform_takes_the_same_share_of_each_layer() -> None:
    # Budget 20 of 50: half of each layer, whatever the other layers' scores.
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0),) * 4, 10)
    scores = [*range(10), *range(100, 110), *range(10, 0, -1), *[7] * 10]
    expected = [*range(5), *range(10, 15), *range(25, 30), *range(30, 35)]
    assert removed_rows(sizes, scores, 0.4, allocation="uniform") == expected


def test_uniform_carries_what_is_smaller_than_a_channel() -> None:
    # Budget 15 of 44, 7.5 per layer of 5 channels of 4: layer 0 gives 1 channel (4), layer 1 15 - 4 = 11, 2 channels.
    sizes = ModelSizes((LayerSizes(0, 1, 5, 4, 0),) * 2, 4)
    assert removed_rows(sizes, [0] * 10, 15 / 44, allocation="uniform") == [0, 5, 6]


def test_uniform_gives_what_half_a_channel_leaves_to_the_next_layer() -> None:
    # Budget 19 of 20, 9.5 per layer: layer 0 gives 9 of its channels of 1, layer 1 the 10 that are left.
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0),) * 2, 0)
    assert removed_rows(sizes, [0] * 20, 0.95, allocation="uniform") == [*range(9), *range(10, 20)]


def test_uniform_takes_the_only_parameter_of_a_layer() -> None:
    sizes = ModelSizes((LayerSizes(0, 1, 1, 1, 0),) * 2, 2)
    assert removed_rows(sizes, [0, 0], 0.5, allocation="uniform") == [0, 1]


def test_uniform_layers_keep_the_share_below_which_they_collapse() -> None:
    # Two layers of 5 channels of 4. At least 0.3 of 20 stay, so at most 14 go: 3 channels. Budget 28 of 44, 14 each:
    # layer 0 gives 12; the 16 left would be 4 channels of layer 1, which may lose 3.
    sizes = ModelSizes((LayerSizes(0, 1, 5, 4, 0),) * 2, 4)
    options = SelectionOptions(collapse_below=0.3)
    assert removed_rows(sizes, [0] * 10, 0.637, options, allocation="uniform") == [0, 1, 2, 5, 6, 7]


def test_uniform_leaves_frozen_layers_out() -> None:
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0),) * 4, 10)
    options = SelectionOptions(freeze_first_layers=1, freeze_last_layers=1)
    assert removed_rows(sizes, [0] * 40, 0.2, options, allocation="uniform") == [*range(10, 15), *range(20, 25)]


@given(cases(), RATIOS, st.integers(0, 2), st.integers(0, 2), st.sampled_from([0.3, 0.5, 0.75, 1]))
def test_global_selection_is_greedy(case: Case, ratio: float, first: int, last: int, max_layer_ratio: float) -> None:
    options = SelectionOptions(first, last, max_layer_ratio)
    n_layers = case.sizes.n_layers
    limits = [
        share_of(max_layer_ratio, layer.prunable_params) if first <= index < n_layers - last else 0
        for index, layer in enumerate(case.sizes.layers)
    ]
    budget = share_of(ratio, case.sizes.total_params)
    if budget > sum(limits):
        with pytest.raises(UserError, match="lower pruning_ratio"):
            select_groups(case.groups, case.sizes, case.scores, ratio, options)
        return
    removed = select_groups(case.groups, case.sizes, case.scores, ratio, options)
    assert removed.tolist() == greedy(case, budget, limits)


@given(cases(), RATIOS, st.sampled_from([0.1, 0.3, 0.5, 0.8]))
def test_collapse_leaves_layers_empty_or_with_their_share(case: Case, ratio: float, share: float) -> None:
    options = SelectionOptions(collapse_below=share)
    try:
        removed = select_groups(case.groups, case.sizes, case.scores, ratio, options)
    except UserError:
        assume(False)
    budget = share_of(ratio, case.sizes.total_params)
    assert removed_params(case, removed) <= budget
    params = [layer.prunable_params for layer in case.sizes.layers]
    kept = kept_by_layer(case, removed)
    assert all(left == 0 or left >= share * count - 1e-9 for left, count in zip(kept, params, strict=True))
    # Selecting again, in the remaining layers and with the remaining budget, removes the same groups.
    stands = [left > 0 for left in kept]
    left = budget - sum(count for count, stand in zip(params, stands, strict=True) if not stand)
    free = [count if stand else 0 for count, stand in zip(params, stands, strict=True)]
    again = np.array(greedy(case, left, free), dtype=bool)
    if all(kept >= share * count for kept, count in zip(kept_by_layer(case, again), params, strict=True)):
        assert (removed & np.array(stands)[case.groups.layer]).tolist() == again.tolist()


@given(cases(), RATIOS)
def test_uniform_layers_stay_within_a_group_of_their_share(case: Case, ratio: float) -> None:
    sizes = case.sizes
    assume(all(layer.n_mlp_channels for layer in sizes.layers))
    assume(ratio * sizes.total_params <= sizes.prunable_params)
    removed = select_groups(case.groups, sizes, case.scores, ratio, FREE, "uniform")
    budget = share_of(ratio, sizes.total_params)
    largest = int(case.groups.cost.max())
    assert removed_params(case, removed) <= budget
    for layer, kept in zip(sizes.layers, kept_by_layer(case, removed), strict=True):
        lost = layer.prunable_params - kept
        assert abs(lost - budget * layer.prunable_params / sizes.prunable_params) < largest


def test_llama_3_8b_misses_its_budget_by_less_than_a_channel(llama_3_8b: ModelSizes) -> None:
    groups = GroupTable.of(llama_3_8b)
    scores = np.random.default_rng(0).random(len(groups))
    for options, allocation in (
        (FREE, "global"),
        (FREE, "uniform"),
        (SelectionOptions(1, 1, 0.4), "global"),
        (SelectionOptions(collapse_below=0.7), "global"),
    ):
        removed = select_groups(groups, llama_3_8b, scores, 0.2, options, allocation)
        missed = 0.2 * llama_3_8b.total_params - Plan.from_mask(groups, llama_3_8b, removed).removed_params(llama_3_8b)
        assert 0 <= missed < 3 * 4096


@pytest.mark.parametrize(
    ("ratio", "options", "allocation", "message"),
    [
        (1.0, FREE, "global", r"pruning_ratio is 1\.0; it is at least 0 and less than 1"),
        (-0.1, FREE, "global", r"pruning_ratio is -0\.1"),
        (0.7, FREE, "global", r"means removing 70 of 100 parameters, but at most 44 can go; lower .* at most 0\.44$"),
        (
            0.4,
            SelectionOptions(freeze_first_layers=1),
            "global",
            "at most 22 can go with freeze_first_layers 1; .*0.22 or",
        ),
        (0.1, SelectionOptions(1, 1), "global", "at most 0 can go with freeze_first_layers 1, freeze_last_layers 1"),
        (0.4, SelectionOptions(max_layer_ratio=0.5), "global", "at most 22 can go .*0.22 or relax these options"),
        (0.5, SelectionOptions(collapse_below=0.5), "uniform", "at most 22 can go with collapse_below 0.5"),
        (0.1, SelectionOptions(max_layer_ratio=0.5, collapse_below=0.2), "global", "set only one of the two"),
    ],
)
def test_infeasible_requests_are_refused(
    ratio: float, options: SelectionOptions, allocation: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_feasible(SMALL, ratio, options, allocation)
    with pytest.raises(UserError, match=message):
        removed_rows(SMALL, SCORES, ratio, options, allocation=allocation)


def test_the_ratio_of_the_remedy_is_feasible() -> None:
    # 19,997 of 20,000 can go: 0.99985, rounded down.
    sizes = ModelSizes((LayerSizes(0, 1, 19_997, 1, 0),), 3)
    with pytest.raises(UserError, match=r"lower pruning_ratio to at most 0\.9998$"):
        check_feasible(sizes, 0.9999, FREE)
    check_feasible(sizes, 0.9998, FREE)


def test_collapse_that_leaves_too_little_is_refused() -> None:
    # One layer of 10: 6 of 10 should go, so it would collapse, which is too much; keeping half is too little.
    sizes = ModelSizes((LayerSizes(0, 1, 10, 1, 0),), 0)
    with pytest.raises(UserError, match=r"removing 6 of 10 parameters, but at most 5 can go with collapse_below 0\.5"):
        removed_rows(sizes, [0] * 10, 0.6, SelectionOptions(collapse_below=0.5))


def test_scores_must_be_finite_and_complete() -> None:
    for scores in ([0.0] * 7, [np.nan] * 8):
        with pytest.raises(ValueError, match="8 finite scores are needed"):
            removed_rows(SMALL, scores, 0.1)
