"""Token scores from logits: equal largest logits, which are frequent in half precision."""

from __future__ import annotations

import pytest
import torch

from espalier.scoring.head import score_tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_first_of_equal_largest_tokens_is_the_most_probable_one(dtype: torch.dtype) -> None:
    logits = torch.randint(-3, 4, (64, 4099), generator=torch.Generator().manual_seed(0)).to(dtype)
    tokens = torch.arange(64).repeat_interleave(2)
    first, last = (
        torch.stack([torch.nonzero(row == row.max())[k, 0] for row in logits.float()]) for k in (0, -1)
    )  # about 585 tokens of each row share the largest logit
    assert (first < last).all()
    target = torch.stack([first, last], dim=1).flatten()
    scores, hits = score_tokens(lambda rows: rows, logits, tokens, target, [(0, 40, 0, 80), (40, 64, 80, 128)])
    assert hits.tolist() == [True, False] * 64
    expected = torch.log_softmax(logits.double(), dim=-1)[tokens, target]
    torch.testing.assert_close(scores.double(), expected, rtol=1e-6, atol=1e-6)
