"""Selection that gives all layers the same shape: a case by hand, and all shapes of small models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.errors import UserError
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import GroupTable
from espalier.planning.same_shape import check_same_shape, select_same_shape
from espalier.planning.select import SelectionOptions
from espalier.planning.stock import stock_kv_group_counts
from tests.unit.planning.reference import share_of

# Two layers of two KV groups (10 parameters each) and four channels (5); 20 outside: 2 * 40 + 20 = 100.
SIZES = ModelSizes((LayerSizes(2, 10, 4, 5, 0),) * 2, other_params=20)
FREE = SelectionOptions()


def removed(scores: list[float], ratio: float, options: SelectionOptions = FREE, counts: object = None) -> list[int]:
    groups = GroupTable.of(SIZES)
    return np.flatnonzero(select_same_shape(groups, SIZES, np.array(scores, float), ratio, options, counts)).tolist()


def test_a_shape_by_hand() -> None:
    # Rows 0, 1 and 6, 7 are KV groups, 2 to 5 and 8 to 11 channels. Each layer may lose 10 of 40 parameters: a KV
    # group, or two channels.
    cheap_channels = [5, 9, 1, 8, 2, 8, 9, 5, 8, 1, 8, 2]
    # KV groups: (5 + 5) * 10 = 100. Channels: (1 + 2 + 1 + 2) * 5 = 30.
    assert removed(cheap_channels, 0.2) == [2, 4, 9, 11]
    cheap_groups = [0, 9, 1, 8, 2, 8, 9, 0, 8, 1, 8, 2]
    assert removed(cheap_groups, 0.2) == [0, 7]
    # 15 parameters each: a KV group and a channel, (0 * 10 + 1 * 5) * 2 = 10, or three channels, 110.
    assert removed(cheap_groups, 0.3) == [0, 2, 7, 9]
    # Widths are 4 or 2, so a KV group with one channel is not possible.
    assert removed(cheap_groups, 0.3, SelectionOptions(mlp_multiple_of=2)) == [0, 7]


def test_equal_scores_go_to_the_first_group_and_to_fewer_kv_groups() -> None:
    assert removed([1] * 12, 0.2) == [2, 3, 8, 9]


def test_numbers_of_kv_groups_that_the_config_refuses_are_not_chosen() -> None:
    cheap_groups = [0, 9, 1, 8, 2, 8, 9, 0, 8, 1, 8, 2]
    assert removed(cheap_groups, 0.2, counts=[2]) == [2, 4, 9, 11]


@st.composite
def requests(draw: st.DrawFn) -> tuple[ModelSizes, np.ndarray, SelectionOptions, tuple[int, ...] | None]:
    layer = LayerSizes(
        draw(st.integers(1, 3)), draw(st.integers(1, 30)), draw(st.integers(1, 8)), draw(st.integers(1, 9)),
        draw(st.integers(0, 5)),
    )  # fmt: skip
    sizes = ModelSizes((layer,) * draw(st.integers(1, 4)), draw(st.integers(1, 50)))
    n = len(GroupTable.of(sizes))
    scores = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)), dtype=float)
    counts = draw(st.none() | st.sets(st.integers(1, 3)).map(tuple))
    return sizes, scores, SelectionOptions(mlp_multiple_of=draw(st.integers(1, 4))), counts


Shape = tuple[int, int]  # removed KV groups and removed channels of a layer


def candidate_shapes(
    layer: LayerSizes, share: int, multiple: int, counts: tuple[int, ...] | None
) -> tuple[list[Shape], list[Shape]]:
    """Return the shapes that selection may choose from, and those of them whose MLP cannot be narrower."""

    def cost(shape: Shape) -> int:
        return shape[0] * layer.kv_group_params + shape[1] * layer.mlp_channel_params

    full = layer.n_mlp_channels
    widths = [width for width in range(1, full + 1) if width % multiple == 0 or width == full]
    kept = [n for n in range(1, layer.n_kv_groups + 1) if n == layer.n_kv_groups or counts is None or n in counts]
    shapes = [(layer.n_kv_groups - n, full - width) for n in kept for width in widths]
    fitting = [shape for shape in shapes if cost(shape) <= share]
    narrowest = [shape for shape in fitting if not any(n == shape[0] and m > shape[1] for n, m in fitting)]
    exhausted = [shape for shape in narrowest if full - shape[1] == widths[0] and cost(shape) < share]
    if len(exhausted) < len(narrowest):
        return [shape for shape in narrowest if shape not in exhausted], []
    most = max(map(cost, narrowest))
    return [shape for shape in narrowest if cost(shape) == most], exhausted


@given(request=requests(), percent=st.integers(1, 95))
def test_no_other_shape_that_uses_the_budget_has_a_lower_mean_score(
    request: tuple[ModelSizes, np.ndarray, SelectionOptions, tuple[int, ...] | None], percent: int
) -> None:
    sizes, scores, options, counts = request
    groups, layer = GroupTable.of(sizes), sizes.layers[0]
    budget = share_of(percent / 100, sizes.total_params)
    try:
        mask = select_same_shape(groups, sizes, scores, percent / 100, options, counts)
    except UserError:
        return
    blocks = [
        [np.flatnonzero((groups.layer == number) & (groups.block == block)) for block in (0, 1)]
        for number in range(sizes.n_layers)
    ]

    def mean_score(rows: np.ndarray) -> float:
        return float((scores[rows] * groups.cost[rows]).sum() / groups.cost[rows].sum())

    def lowest(shape: Shape) -> float:
        chosen = [
            sorted(rows, key=lambda row: scores[row])[:n]
            for layer_rows in blocks
            for rows, n in zip(layer_rows, shape, strict=True)
        ]
        return mean_score(np.array([row for rows in chosen for row in rows], dtype=int)) if any(shape) else 0.0

    found = {tuple(int(mask[rows].sum()) for rows in layer_rows) for layer_rows in blocks}
    assert len(found) == 1
    candidates, exhausted = candidate_shapes(layer, budget // sizes.n_layers, options.mlp_multiple_of, counts)
    candidates = [shape for shape in candidates if any(shape)] or candidates
    assert found <= set(candidates)
    removed_rows = np.flatnonzero(mask)
    assert mean_score(removed_rows) == pytest.approx(min(map(lowest, candidates)))
    missed = budget - int(groups.cost[removed_rows].sum())
    assert missed >= 0
    assert exhausted or missed < options.mlp_multiple_of * layer.mlp_channel_params * sizes.n_layers


def test_a_shape_that_removes_nothing_is_not_chosen_if_another_fits() -> None:
    """A fifth of 20 parameters is less than a channel (5), but a KV group (2) fits, whatever its score."""
    layer = LayerSizes(n_kv_groups=2, kv_group_params=2, n_mlp_channels=3, mlp_channel_params=5, fixed_params=0)
    sizes = ModelSizes((layer,), other_params=1)
    groups = GroupTable.of(sizes)
    mask = select_same_shape(groups, sizes, np.array([9.0, 8.0, 0.1, 0.1, 0.1]), 0.2, SelectionOptions())
    assert mask.tolist() == [False, True, False, False, False]


def test_an_8b_model_keeps_numbers_of_heads_that_llama_accepts(llama_3_8b: ModelSizes) -> None:
    config = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32}
    counts = stock_kv_group_counts(8, config)
    assert counts == (1, 2, 4, 8)  # 4, 8, 16 and 32 heads divide 4096; 12, 20, 24 and 28 do not
    assert stock_kv_group_counts(8, config | {"model_type": "mistral"}) == tuple(range(1, 9))
    assert stock_kv_group_counts(3, {"model_type": "llama", "hidden_size": 576, "num_attention_heads": 9}) == (1, 2, 3)
    groups = GroupTable.of(llama_3_8b)
    scores = np.random.default_rng(0).random(len(groups))
    mask = select_same_shape(groups, llama_3_8b, scores, 0.2, SelectionOptions(mlp_multiple_of=64), counts)
    missed = 0.2 * llama_3_8b.total_params - groups.cost[mask].sum()
    assert 0 <= missed < 32 * 64 * 3 * 4096


@pytest.mark.parametrize(
    ("sizes", "ratio", "options", "message"),
    [
        (SIZES, 0.6, FREE, r"at most 50 can go with allocation same_shape; lower pruning_ratio to at most 0\.5"),
        (SIZES, 0.5, SelectionOptions(mlp_multiple_of=2), "at most 40 can go with mlp_multiple_of 2, allocation same"),
        (SIZES, 0.3, SelectionOptions(max_layer_ratio=0.25), "at most 20 can go with max_layer_ratio 0.25"),
        (SIZES, 0.05, FREE, "means removing 2 parameters of each layer, less than the smallest step"),
        (SIZES, 0.2, SelectionOptions(freeze_first_layers=1), "freeze_first_layers 1 gives layers different shapes"),
        (SIZES, 0.2, SelectionOptions(collapse_below=0.1), "collapse_below 0.1 gives layers different shapes"),
        (
            ModelSizes((LayerSizes(2, 10, 4, 5, 0), LayerSizes(2, 10, 3, 5, 0)), 20), 0.2, FREE,
            "the layers of the unpruned model differ in size",
        ),
    ],
)  # fmt: skip
def test_requests_that_equal_shapes_cannot_meet_are_refused(
    sizes: ModelSizes, ratio: float, options: SelectionOptions, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_same_shape(sizes, ratio, options)
