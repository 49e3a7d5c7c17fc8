"""Numbers of documents computed from standard errors."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.results.legacy.evaluation_results import documents_implied


def test_counts_behind_published_standard_errors() -> None:
    # BoolQ has 3,270 documents and ARC-Easy 2,376. The values are from a published experiment.
    assert documents_implied(0.4917431192660551, 0.008743862487967628) == 3270
    assert documents_implied(0.41119528619528617, 0.010096663811817673) == 2376
    assert documents_implied(1.0, 0.0) is None
    assert documents_implied(0.5, 0.0) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 20_000), st.data())
def test_counts_are_found_again(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(1, n - 1))
    p = right / n
    assert documents_implied(p, np.sqrt(p * (1 - p) / (n - 1))) == n
