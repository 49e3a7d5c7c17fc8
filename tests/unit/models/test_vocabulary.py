"""Token ids are checked against the rows of the model's embedding."""

import numpy as np
import pytest

from espalier.errors import UserError
from espalier.models.vocabulary import check_token_ids


@pytest.mark.parametrize("tokens", [[], [0, 7], [[7, 0], [1, 1]]])
def test_tokens_with_a_row_pass(tokens: list[int]) -> None:
    check_token_ids(np.array(tokens, dtype=np.int64), 8, "calibration")


@pytest.mark.parametrize(("tokens", "wrong"), [([3, 8, 1], 8), ([3, -1, 1], -1), ([-100], -100)])
def test_a_token_without_a_row_is_named(tokens: list[int], wrong: int) -> None:
    with pytest.raises(UserError, match=rf"^calibration: has token {wrong}, but .* has 8 rows \(tokens 0 to 7\)"):
        check_token_ids(np.array(tokens), 8, "calibration")
