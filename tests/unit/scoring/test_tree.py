"""Token trees of requests: each request finds its tokens in order, and shared prefixes are stored once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.errors import UserError
from espalier.scoring.requests import Request, input_tokens, is_truncated
from espalier.scoring.tree import Forest, build_forest

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=12)  # few different tokens, so that much is shared
random_requests = st.lists(st.builds(Request, tokens, tokens), min_size=1, max_size=12)


def forest_of(requests: list[Request], *, limit: int = 100, width: int = 1000, widest: int = 1000) -> Forest:
    return build_forest(requests, limit=limit, width=width, widest=widest)


def seen_by(forest: Forest, tree: int, node: int) -> list[int]:
    """Return the nodes that a node sees, itself included."""
    end = forest.end[forest.first[tree] : forest.first[tree + 1]]
    return [j for j in range(node + 1) if node < end[j]]


def test_a_tree_by_hand() -> None:
    # 1 2 | 3 4     reads 1 2 3      nodes  0: 1   1: 2   2: 3   3: 5   4: 6
    # 1 2 | 5 6 7   reads 1 2 5 6    node 2 ends where 5 begins; 2 predicts 3 and 5
    forest = forest_of([Request([1, 2], [5, 6, 7]), Request([1, 2], [3, 4])])
    assert forest.tokens.tolist() == [1, 2, 3, 5, 6]
    assert forest.depth.tolist() == [0, 1, 2, 2, 3]
    assert forest.end.tolist() == [5, 5, 3, 5, 5]
    assert forest.request.tolist() == [1, 1, 0, 0, 0]
    assert forest.node.tolist() == [1, 2, 1, 3, 4]
    assert forest.target.tolist() == [3, 4, 5, 6, 7]
    assert {array.dtype for array in (forest.tokens, forest.depth, forest.end, forest.target)} == {np.dtype(np.int32)}
    assert forest.is_chain.tolist() == [False]


def test_choices_of_one_token_share_everything() -> None:
    forest = forest_of([Request([1, 2, 3], [choice]) for choice in (7, 8, 9)])
    assert forest.tokens.tolist() == [1, 2, 3]
    assert forest.node.tolist() == [2, 2, 2]
    assert forest.is_chain.tolist() == [True]


def test_unrelated_requests_are_trees_of_their_own() -> None:
    forest = forest_of([Request([1, 2, 3], [4]), Request([2, 2, 3], [4])])
    assert forest.first.tolist() == [0, 3, 6]
    assert forest.depth.tolist() == [0, 1, 2, 0, 1, 2]


@given(random_requests, st.integers(12, 30), st.integers(1, 40))
def test_each_request_finds_its_tokens(requests: list[Request], limit: int, width: int) -> None:
    forest = forest_of(requests, limit=limit, width=width, widest=2 * width)
    found: dict[int, list[int]] = {i: [] for i in range(len(requests))}
    for tree in range(len(forest.is_chain)):
        for k in range(forest.first_scored[tree], forest.first_scored[tree + 1]):
            request, node = int(forest.request[k]), int(forest.node[k])
            path = np.array(seen_by(forest, tree, node)) + forest.first[tree]
            expected = input_tokens(requests[request], limit)[: len(path)]
            assert forest.tokens[path].tolist() == expected.tolist()
            assert forest.depth[path].tolist() == list(range(len(path)))
            found[request].append(int(forest.target[k]))
    assert found == {i: list(request.continuation) for i, request in enumerate(requests)}


@given(random_requests)
def test_a_forest_is_never_larger_than_its_requests(requests: list[Request]) -> None:
    inputs = [tuple(input_tokens(request, 100)) for request in requests]
    assert sum(forest_of(requests).sizes) <= sum(map(len, set(inputs)))


def test_big_trees_are_cut_where_least_is_shared() -> None:
    # Two documents on one instruction of 4 tokens, each with a context of 20 more and two choices of 8 (7 are read).
    instruction = [9, 9, 9, 9]
    documents = [[*instruction, *range(start, start + 20)] for start in (10, 40)]
    requests = [Request(d, list(range(c, c + 8))) for d in documents for c in (70, 80)]
    sizes = {
        (width, widest): sorted(forest_of(requests, width=width, widest=widest).sizes.tolist())
        for width, widest in ((80, 80), (72, 72), (71, 72), (40, 80), (30, 40), (30, 38), (30, 30))
    }
    assert sizes[80, 80] == sizes[72, 72] == [4 + 2 * (20 + 14)]
    assert sizes[71, 72] == [38, 38]
    assert sizes[40, 80] == [38, 38]  # the instruction is read twice
    assert sizes[30, 40] == sizes[30, 38] == [38, 38]  # separating the choices would repeat the context
    assert sizes[30, 30] == [31, 31, 31, 31]


def test_a_big_tree_stays_whole_where_cutting_adds_an_eighth() -> None:
    # Three documents on 4 tokens. Of 18 more each: 58 tokens, to which two cuts would add 8, more than 58 / 8.
    def documents(length: int) -> list[Request]:
        return [Request([9] * 4 + [start] * length, [1]) for start in (20, 30, 40)]

    assert forest_of(documents(18), width=40, widest=58).sizes.tolist() == [58]
    assert forest_of(documents(18), width=40, widest=57).sizes.tolist() == [22, 22, 22]
    # Of 20 more each: 64 tokens, to which two cuts would add just an eighth.
    assert forest_of(documents(20), width=40, widest=64).sizes.tolist() == [24, 24, 24]


def test_prefixes_too_short_to_matter_are_not_shared() -> None:
    # The second and third share 2 of 40 tokens. The length of the first must not matter.
    def pair(shared: int) -> list[Request]:
        return [Request([2] * shared + [start] * (40 - shared), [7]) for start in (30, 40)]

    short = Request([1], [7])
    assert forest_of([short, *pair(2)]).sizes.tolist() == [1, 40, 40]
    assert forest_of(pair(4)).sizes.tolist() == [40, 40]
    assert forest_of(pair(5)).sizes.tolist() == [75]  # an eighth


def test_large_token_numbers_sort_as_numbers() -> None:
    requests = [Request([word, 5], [choice]) for choice in (6, 7) for word in (10_001, 10_002)]
    assert forest_of(requests).sizes.tolist() == [2, 2]


def test_a_chain_is_never_cut() -> None:
    assert forest_of([Request(list(range(50)), [1]), Request(list(range(50)), [2])], width=8, widest=8).sizes == [50]


def test_truncation_on_the_left_as_in_lm_eval() -> None:
    # lm-eval: (context + continuation)[-(limit + 1):][:-1]
    request = Request([1, 2, 3, 4, 5], [6, 7])
    assert [input_tokens(request, limit).tolist() for limit in (7, 6, 5, 2)] == [
        [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6], [5, 6],
    ]  # fmt: skip
    assert [is_truncated(request, limit) for limit in (7, 6, 5)] == [False, False, True]


@pytest.mark.parametrize(("context", "continuation"), [([], [1]), ([1], []), ([1], [2] * 9)])
def test_what_cannot_be_scored_is_refused(context: list[int], continuation: list[int]) -> None:
    with pytest.raises(UserError, match=r"a request has \d tokens of context and \d of continuation; .* at most 8"):
        input_tokens(Request(context, continuation), 8)
