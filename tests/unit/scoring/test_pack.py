"""Rows and batches: nothing is lost, little is wasted."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from espalier.scoring import Request
from espalier.scoring.engine import balance_of
from espalier.scoring.pack import Batch, choose_batches, fill, make_batches, pack, padding
from espalier.scoring.tree import build_forest


@given(st.lists(st.integers(1, 90), max_size=60), st.integers(1, 64))
def test_each_item_is_in_one_row_that_holds_it(sizes: list[int], width: int) -> None:
    rows = pack(sizes, width)
    assert sorted(item for row in rows for item in row) == list(range(len(sizes)))
    for row in rows:
        assert sum(sizes[item] for item in row) <= max(width, -(-max(sizes[item] for item in row) // 8) * 8)


def test_best_fit_by_hand() -> None:
    # 6 and 5 open rows of 10; 4 fits both and goes where less is left over (6 + 4); 3 and 2 join 5.
    assert pack([3, 6, 2, 5, 4], 10) == [[1, 4], [3, 0, 2]]


@pytest.mark.parametrize(("shape", "token_budget"), [("CPU_SHAPE", 2048), ("LLAMA_3_8B", 16_384)])
def test_the_seven_tasks_waste_under_two_percent(benchmark: ModuleType, shape: str, token_budget: int) -> None:
    balance = balance_of(LlamaConfig(**getattr(benchmark, shape)))
    requests = benchmark.draw_requests(20_465, 32_000)
    forest = build_forest(requests, limit=2048, width=512, widest=4096)
    batches = choose_batches(forest, token_budget=token_budget, balance=balance)
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
    arrays = fill(forest, Batch(((0, 1), (1,)), width=5, is_causal=False))
    assert arrays.nodes[0].tolist() == [[1, 2, 5, 4, 0], [4, 0, 0, 0, 0]]
    assert arrays.nodes[1].tolist() == [[0, 1, 2, 0, 0], [0, 0, 0, 0, 0]]
    assert arrays.nodes[2].tolist() == [[3, 3, 3, 4, 5], [1, 2, 3, 4, 5]]  # padding sees itself
    assert arrays.position.tolist() == [1, 2, 3, 5]
    assert arrays.index.tolist() == [0, 0, 1, 2, 3]
    assert arrays.target.tolist() == [3, 5, 6, 4, 4]
    assert arrays.request.tolist() == [0, 1, 1, 2, 2]


def test_chains_alone_in_their_rows_are_batched_apart() -> None:
    chains = [Request(np.arange(40) + i, [1]) for i in range(3)]
    tree = [Request([7] * 10, [1, 2]), Request([7] * 10, [3, 4])]
    forest = build_forest([*chains, *tree], limit=99, width=40, widest=40)
    batches = make_batches(forest, width=40, token_budget=80)
    assert [(len(batch.rows), batch.width, batch.is_causal) for batch in batches] == [
        (2, 40, True), (1, 40, True), (1, 16, False),
    ]  # fmt: skip
