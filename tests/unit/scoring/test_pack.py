"""Packing into rows and batches: every item is packed once, with little padding."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from espalier.scoring.engine import break_even_width
from espalier.scoring.pack import Batch, best_fit_rows, choose_batches, make_batches, padding, to_arrays
from espalier.scoring.requests import Request
from espalier.scoring.tree import Forest, build_forest


@given(st.lists(st.integers(1, 90), max_size=60), st.integers(1, 64))
def test_each_item_is_in_exactly_one_row_and_fits(sizes: list[int], width: int) -> None:
    rows = best_fit_rows(sizes, width)
    assert sorted(item for row in rows for item in row) == list(range(len(sizes)))
    for row in rows:
        assert sum(sizes[item] for item in row) <= max(width, -(-max(sizes[item] for item in row) // 8) * 8)


def test_best_fit_by_hand() -> None:
    # 6 and 5 open rows of 10; 4 fits both and goes where less is left over (6 + 4); 3 and 2 join 5.
    assert best_fit_rows([3, 6, 2, 5, 4], 10) == [[1, 4], [3, 0, 2]]


@pytest.mark.parametrize(("shape", "token_budget"), [("CPU_SHAPE", 2048), ("LLAMA_3_8B", 16_384)])
def test_the_seven_tasks_waste_under_two_percent(benchmark: ModuleType, shape: str, token_budget: int) -> None:
    balance = break_even_width(LlamaConfig(**getattr(benchmark, shape)))
    requests = benchmark.draw_requests(20_465, 32_000)
    forest = build_forest(requests, limit=2048, width=512, widest=4096)
    batches = choose_batches(forest, token_budget=token_budget, break_even=balance)
    assert padding(forest, batches) < 0.02
    assert max(batch.n_tokens for batch in batches) <= token_budget
    trees = [tree for batch in batches for row in batch.rows for tree in row]
    assert sorted(trees) == list(range(len(forest.is_chain)))
    assert forest.sizes.sum() < 0.5 * sum(len(r.context) + len(r.continuation) - 1 for r in requests)


def test_a_batch_by_hand() -> None:
    # tree 0: 1 2 with 3 and 5 after it; tree 1: 4 alone
    forest = build_forest(
        [Request([1, 2], [3]), Request([1, 2], [5, 6]), Request([4], [4])], limit=9, width=8, widest=8
    )
    arrays = to_arrays(forest, Batch(((0, 1), (1,)), width=5, is_causal=False))
    assert arrays.nodes[0].tolist() == [[1, 2, 5, 4, 0], [4, 0, 0, 0, 0]]
    assert arrays.nodes[1].tolist() == [[0, 1, 2, 0, 0], [0, 0, 0, 0, 0]]
    assert arrays.nodes[2].tolist() == [[3, 3, 3, 4, 5], [1, 2, 3, 4, 5]]  # padding attends to itself
    assert arrays.position.tolist() == [1, 2, 3, 5]
    assert arrays.index.tolist() == [0, 0, 1, 2, 3]
    assert arrays.target.tolist() == [3, 5, 6, 4, 4]
    assert arrays.request.tolist() == [0, 1, 1, 2, 2]
    assert arrays.nodes.dtype == np.int32
    three = to_arrays(forest, Batch(((0, 1, 1),), width=6, is_causal=False))
    assert three.nodes.tolist() == [[[1, 2, 5, 4, 4, 0]], [[0, 1, 2, 0, 0, 0]], [[3, 3, 3, 4, 5, 6]]]
    assert three.position.tolist() == [1, 2, 3, 4]


def apart(lengths: list[int]) -> Forest:
    """Return trees of requests that have these lengths and share no prefix."""
    return build_forest(
        [Request([number] * length, [1]) for number, length in enumerate(lengths)], limit=999, width=999, widest=999
    )


@given(st.lists(st.integers(1, 120), min_size=1, max_size=30), st.integers(8, 64), st.integers(8, 300))
def test_rows_of_a_batch_are_about_as_wide_as_it_is(lengths: list[int], width: int, token_budget: int) -> None:
    forest = apart(lengths)
    batches = make_batches(forest, width=width, token_budget=token_budget)
    assert sorted(tree for batch in batches for row in batch.rows for tree in row) == list(range(len(lengths)))
    assert [batch.width for batch in batches] == sorted((batch.width for batch in batches), reverse=True)
    for batch in batches:
        used = [sum(int(forest.sizes[tree]) for tree in row) for row in batch.rows]
        assert max(used) <= batch.width < max(used) + 8
        assert min(used) > 0.9 * batch.width - 8  # widths are multiples of 8
        assert batch.n_tokens <= token_budget or len(batch.rows) == 1
        assert batch.is_causal == all(len(row) == 1 for row in batch.rows)


def test_rows_of_at_least_nine_tenths_of_the_width_share_a_batch() -> None:
    assert [len(batch.rows) for batch in make_batches(apart([80, 72]), width=80, token_budget=999)] == [2]
    assert [len(batch.rows) for batch in make_batches(apart([80, 71]), width=80, token_budget=999)] == [2]
    assert [len(batch.rows) for batch in make_batches(apart([80, 64]), width=80, token_budget=999)] == [1, 1]


@pytest.mark.parametrize("token_budget", [99, 600, 2048])
def test_the_cheapest_width_is_chosen(token_budget: int) -> None:
    forest = apart([*range(20, 120, 3), *range(300, 420, 40)])
    chosen = set()
    for balance in (1.0, 30.0, 100.0, 200.0, 400.0, 700.0, 1000.0, 2000.0, 4000.0, 1e9):
        options = {
            width: make_batches(forest, width=width, token_budget=token_budget)
            for width in {min(width, token_budget // 8 * 8) for width in (128, 256, 512, 1024)}
        }
        costs = {
            width: sum(batch.n_tokens * (1 + batch.width / balance) for batch in batches)
            for width, batches in options.items()
        }
        cheapest = min(costs, key=lambda width: (costs[width], width))
        assert choose_batches(forest, token_budget=token_budget, break_even=balance) == options[cheapest]
        chosen.add(cheapest)
    assert len(chosen) > 1 or token_budget < 128  # the cost of attention decides


def test_widths_stay_within_the_smallest_budget() -> None:
    # Rows have at least 8 tokens, even for a budget of 5.
    assert [batch.width for batch in choose_batches(apart([3, 4]), token_budget=5, break_even=100)] == [8]


def test_padding_by_hand() -> None:
    # 5 and 9 tokens in rows of 8 and 16: 10 of 24 are padding.
    batches = [Batch(((1,),), 16, is_causal=True), Batch(((0,),), 8, is_causal=True)]
    assert padding(apart([5, 9]), batches) == pytest.approx(10 / 24)


def test_chains_alone_in_their_rows_are_batched_apart() -> None:
    chains = [Request(np.arange(40) + i, [1]) for i in range(3)]
    tree = [Request([7] * 10, [1, 2]), Request([7] * 10, [3, 4])]
    forest = build_forest([*chains, *tree], limit=99, width=40, widest=40)
    batches = make_batches(forest, width=40, token_budget=80)
    assert [(len(batch.rows), batch.width, batch.is_causal) for batch in batches] == [
        (2, 40, True), (1, 40, True), (1, 16, False),
    ]  # fmt: skip
