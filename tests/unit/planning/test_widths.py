"""Selection with MLP widths that are multiples of a number."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from espalier.errors import UserError
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import MLP_ID, GroupTable
from espalier.planning.select import SelectionOptions, select_groups
from tests.unit.planning.reference import Case, cases, share_of

RATIOS = st.integers(0, 90).map(lambda percent: percent / 100)


def widths(case: Case, removed: np.ndarray) -> list[int]:
    """Return how many MLP channels each layer keeps."""
    mlp = case.groups.block == MLP_ID
    return [int((~removed & mlp & (case.groups.layer == index)).sum()) for index in range(case.sizes.n_layers)]


def mlp_only(scores: list[float], n_layers: int, ratio: float, options: SelectionOptions, **settings: str) -> list[int]:
    """Select in a model of MLPs only, with one parameter per channel; return the width of each layer."""
    n_channels = len(scores) // n_layers
    sizes = ModelSizes((LayerSizes(0, 1, n_channels, 1, 0),) * n_layers, 0)
    case = Case(sizes, np.array(scores, dtype=float))
    removed = select_groups(case.groups, sizes, case.scores, ratio, options, **settings)
    lowest_first = case.scores.reshape(n_layers, -1).argsort(axis=1, kind="stable")
    result = widths(case, removed)
    for layer, order, width in zip(removed.reshape(n_layers, -1), lowest_first, result, strict=True):
        assert layer[order].tolist() == [True] * (n_channels - width) + [False] * width  # by score within the layer
    return result


FOURS = SelectionOptions(mlp_multiple_of=4)


def test_widths_go_to_the_nearest_multiple() -> None:
    # 8 of 16 channels go: 3 and 5 by score, widths 5 and 3, the nearest multiples 4 and 4 meet the budget.
    assert mlp_only([0, 0, 0, 9, 9, 9, 9, 9, *[1] * 5, 9, 9, 9], 2, 0.5, FOURS) == [4, 4]


def test_what_exceeds_the_budget_comes_back_by_score() -> None:
    # Budget 6 of 24, 3 in layers 0 and 1: widths 5, 5, 8. Nearest: 4, 4, 8, 8 removed. The multiple with the highest
    # mean score comes back: layer 1's (0, 0, 0, 9) rather than layer 0's (0, 0, 0, 8).
    scores = [0, 0, 0, *[8] * 5, 0, 0, 0, *[9] * 5, *[9] * 8]
    assert mlp_only(scores, 3, 0.25, FOURS) == [4, 8, 8]


def test_what_is_left_of_the_budget_goes_by_score() -> None:
    # Budget 5 of 24: widths 7, 6, 6. Nearest (a tie goes up): 8, 8, 8. One multiple fits: the lowest mean is layer 2's.
    scores = [0, *[8] * 7, 1, 1, *[8] * 6, 0, 0, *[8] * 6]
    assert mlp_only(scores, 3, 5 / 24, FOURS) == [8, 8, 4]


def test_ties_of_steps_break_by_layer() -> None:
    # Budget 4 of 16, all scores equal: width 4 and 8 by the order of the table.
    assert mlp_only([1] * 16, 2, 0.25, FOURS) == [4, 8]
    # Budget 4 of 16, 2 from each layer: widths 6 and 6, nearest 8 and 8; the step of the first layer goes.
    assert mlp_only([0, 0, *[1] * 6] * 2, 2, 0.25, FOURS) == [4, 8]
    # Budget 2 of 8: each loses one of 4 channels, the nearest width is 4, and no multiple of 4 fits.
    assert mlp_only([0, 1, 1, 1] * 2, 2, 0.25, FOURS) == [4, 4]


def test_full_width_need_not_be_a_multiple() -> None:
    # 0, 6 and 10 are admissible. Budget 1: widths 9 and 10, nearest 10 and 10.
    sixes = SelectionOptions(mlp_multiple_of=6)
    assert mlp_only([0, *[9] * 19], 2, 0.05, sixes) == [10, 10]
    # Budget 5: widths 5 and 10, nearest 6 and 10.
    assert mlp_only([*[0] * 5, *[9] * 15], 2, 0.25, sixes) == [6, 10]


def test_width_may_become_zero() -> None:
    # Budget 7 of 16: width 1 goes to 0, 8 removed; only one step can be taken back, so layer 0 is 4 wide again.
    assert mlp_only([*[0] * 7, *[9] * 9], 2, 7 / 16, FOURS) == [4, 8]
    # Budget 11 of 24: widths 0 and 5, nearest 0 and 4, 12 removed. The step with the higher score comes back, which is
    # the empty layer's: (5, 5, 5, 5) against (1, 1, 1, 6).
    assert mlp_only([*[0] * 4, *[5] * 4, 1, 1, 1, 6, *[9] * 12], 3, 0.46, FOURS) == [4, 4, 8]
    # Budget 9 of 24: widths 1 and 6; nearest 0 and 8, 8 removed.
    assert mlp_only([*[0] * 7, 9, 1, 1, *[9] * 14], 3, 0.375, FOURS) == [0, 8, 8]


def test_layer_limits_hold() -> None:
    # At most 5 of 8 channels of a layer: width 3 may not become narrower than 4.
    options = SelectionOptions(max_layer_ratio=0.625, mlp_multiple_of=4)
    assert mlp_only([*[0] * 8, *[1] * 8], 2, 0.5, options) == [4, 4]


def test_uniform_layers_stay_next_to_their_share() -> None:
    # 3 of 8 channels each, budget 9 of 24: width 5 becomes 4 or 8, never 0, though layer 0 has the lowest scores.
    assert mlp_only([*[0] * 8, *[1] * 8, *[2] * 8], 3, 0.375, FOURS, allocation="uniform") == [4, 4, 8]
    assert mlp_only([*[0] * 8, *[1] * 8, *[2] * 8], 3, 0.375, FOURS) == [0, 8, 8]
    # 2 of 8 channels each, budget 8 of 32: width 6 becomes 8, and two steps fit. Layer 0 takes one, not both.
    scores = [score for layer in range(4) for score in [layer] * 8]
    assert mlp_only(scores, 4, 0.25, FOURS, allocation="uniform") == [4, 4, 8, 8]


@given(cases(max_channels=30), RATIOS, st.integers(2, 7), st.integers(0, 1), st.sampled_from(["global", "uniform"]))
def test_widths_are_admissible_and_the_budget_met_within_a_step(
    case: Case, ratio: float, multiple: int, first: int, allocation: str
) -> None:
    options = SelectionOptions(freeze_first_layers=first, mlp_multiple_of=multiple)
    try:
        removed = select_groups(case.groups, case.sizes, case.scores, ratio, options, allocation)
    except UserError:
        assume(False)
    missed = share_of(ratio, case.sizes.total_params) - int(case.groups.cost[removed].sum())
    assert missed >= 0
    for index, (layer, width) in enumerate(zip(case.sizes.layers, widths(case, removed), strict=True)):
        assert width % multiple == 0 or width == layer.n_mlp_channels
        if index < first:
            assert width == layer.n_mlp_channels
        elif width and allocation == "global":
            assert missed < multiple * layer.mlp_channel_params


@given(cases(max_channels=30), RATIOS, st.integers(2, 7), st.sampled_from([0.2, 0.5]))
def test_collapse_holds_with_multiples(case: Case, ratio: float, multiple: int, share: float) -> None:
    options = SelectionOptions(collapse_below=share, mlp_multiple_of=multiple)
    try:
        removed = select_groups(case.groups, case.sizes, case.scores, ratio, options)
    except UserError:
        assume(False)
    groups = case.groups
    assert groups.cost[removed].sum() <= share_of(ratio, case.sizes.total_params)
    for index, (layer, width) in enumerate(zip(case.sizes.layers, widths(case, removed), strict=True)):
        kept = int(groups.cost[~removed & (groups.layer == index)].sum())
        assert kept == 0 or kept >= share * layer.prunable_params - 1e-9
        assert width % multiple == 0 or width == layer.n_mlp_channels


def test_llama_3_8b_is_within_one_multiple(llama_3_8b: ModelSizes) -> None:
    groups = GroupTable.of(llama_3_8b)
    case = Case(llama_3_8b, np.random.default_rng(1).random(len(groups)) * (1 + groups.layer % 5))
    for allocation in ("global", "uniform"):
        removed = select_groups(groups, llama_3_8b, case.scores, 0.2, SelectionOptions(mlp_multiple_of=256), allocation)
        assert all(width % 256 == 0 for width in widths(case, removed))
        missed = 0.2 * llama_3_8b.total_params - int(groups.cost[removed].sum())
        assert 0 <= missed < 256 * 3 * 4096
