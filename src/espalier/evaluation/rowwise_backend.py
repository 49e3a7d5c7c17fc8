"""lm-evaluation-harness's `hf` backend with batches whose rows end on their own.

One thing differs from lm-eval, so that an answer does not depend on the other prompts of its batch. lm-eval ends a
batch only when the same stop text has occurred in every row, and rows go on after a stop token that the model's config
does not name as its end. Here each row ends at its own first stop text. The answers are those of lm-eval with batches
of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import MultiTokenEOSCriteria
from transformers import StoppingCriteria, StoppingCriteriaList

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RowwiseBackend(HFLM):  # type: ignore[misc]
    """lm-eval's backend for models in memory, whose rows end on their own."""

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any) -> torch.Tensor:
        settings.pop("temperature", None)
        settings.pop("do_sample", None)
        ends = self.model.generation_config.eos_token_id
        tokens = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        generated: torch.Tensor = self.model.generate(
            input_ids=context,
            max_length=max_length,
            stopping_criteria=StoppingCriteriaList([_EachRow(self.tokenizer, stop, context)]),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=sorted(tokens) or None,
            use_cache=True,
            do_sample=False,
            **settings,
        )
        return generated


class _EachRow(StoppingCriteria):  # type: ignore[misc]
    """Ends each row at its own first stop text, found as lm-eval finds it.

    Args:
        tokenizer: Tokenizer of the model.
        stop: Stop texts. Empty ones are ignored.
        context: Tokens of the prompts, (rows, tokens).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], context: torch.Tensor) -> None:
        rows, width = context.shape
        self._criteria = [MultiTokenEOSCriteria(text, tokenizer, width, rows) for text in stop if text]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        done = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        for criterion in self._criteria:
            criterion(input_ids, scores)
            done |= torch.tensor(criterion.done_tracker, device=input_ids.device)
        return done
