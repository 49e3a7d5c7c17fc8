"""Greedy answers of a model in memory to generative tasks, through lm-evaluation-harness's `hf` backend.

lm-eval's own code tokenises and truncates the prompts, generates with a KV cache, and cuts the answers at the stop
texts. `espalier.models.pruned_blocks` keeps the KV cache right where attention was removed.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from espalier.errors import UserError
from espalier.models.context import context_length
from espalier.models.vocabulary import check_token_ids
from espalier.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

DEFAULT_MAX_TOKENS = 256
"""Most tokens of an answer if its task does not say: the default of lm-eval's `hf` backend."""
_BATCH_SIZE = {"cpu": 1, "cuda": 4}
"""Most tokens of a batch, prompts and answers together, as a multiple of `evaluation.token_budget`. Each step computes
one token of each row only, so batches may be larger than those of scoring."""


@dataclass(frozen=True)
class Prompt:
    """A prompt to answer.

    Attributes:
        text: The prompt.
        settings: lm-eval's settings of the answer (`generation_kwargs`).
        n_tokens: Tokens of the prompt.
        max_tokens: Most tokens of the answer.
    """

    text: str
    settings: dict[str, Any]
    n_tokens: int
    max_tokens: int

    def is_truncated(self, limit: int) -> bool:
        """Return whether the prompt is truncated so that the longest answer fits in a context of `limit` tokens."""
        return self.n_tokens > limit - self.max_tokens


class Generator:
    """Answers prompts with a model in memory.

    Args:
        model: A causal language model.
        tokenizer: Tokenizer of the model.
        add_bos: Whether prompts begin with BOS. None uses the tokenizer's default.
        token_budget: Most tokens per forward pass of the evaluation.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, add_bos: bool | None, token_budget: int
    ) -> None:
        from espalier.evaluation.rowwise_backend import RowwiseBackend  # slow to import, and not every task needs it

        self.limit = context_length(model)
        self._lm = RowwiseBackend(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),  # the backend sets its padding token
            add_bos_token=add_bos,
            max_length=self.limit,
            batch_size=1,
        )
        self._n_rows = int(model.get_input_embeddings().weight.shape[0])
        self._budget = token_budget * _BATCH_SIZE["cpu" if model.device.type == "cpu" else "cuda"]

    def prompt(self, instance: Instance) -> Prompt:
        """Return the prompt of a request of lm-eval.

        Raises:
            UserError: If a token of the prompt has no row in the model's embedding.
        """
        text, settings = instance.args
        tokens = self._lm.tok_encode(text)
        check_token_ids(np.asarray(tokens), self._n_rows, f"task {instance.task_name}, document {instance.doc_id}")
        return Prompt(text, settings, len(tokens), max_answer_tokens(settings))

    def answer(self, prompts: Sequence[Prompt]) -> list[str]:
        """Answer prompts greedily.

        Args:
            prompts: The prompts. Equal ones are answered once.

        Returns:
            The text of each answer, without the stop text.

        Raises:
            UserError: If the device is out of memory with a single prompt.
        """
        unique = {_identity(prompt): prompt for prompt in prompts}
        answers: dict[str, str] = {}
        with Progress("generative tasks", total=len(unique), unit="answers") as progress:
            waiting = list(self._batches(list(unique.values())))
            while waiting:
                batch = waiting.pop(0)
                found = self._answer_or_none(batch)
                if found is None:
                    waiting = [*self._halves(batch), *waiting]
                    continue
                answers.update(zip(map(_identity, batch), found, strict=True))
                progress.advance(len(batch))
        return [answers[_identity(prompt)] for prompt in prompts]

    def _batches(self, prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
        """Yield batches of prompts with the same settings, longest prompt first."""
        ordered = sorted(prompts, key=lambda one: (repr(one.settings), -one.n_tokens, one.text))
        batch: list[Prompt] = []
        for prompt in ordered:
            if batch:
                longest = min(batch[0].n_tokens, self.limit) + batch[0].max_tokens
                if prompt.settings != batch[0].settings or (len(batch) + 1) * longest > self._budget:
                    yield batch
                    batch = []
            batch.append(prompt)
        if batch:
            yield batch

    def _answer_or_none(self, batch: Sequence[Prompt]) -> list[str] | None:
        """Answer a batch, or return None if the device is out of memory."""
        self._lm.batch_size_per_gpu = len(batch)
        requests = [
            Instance("generate_until", {}, (prompt.text, prompt.settings), number)
            for number, prompt in enumerate(batch)
        ]
        try:
            answers: list[str] = self._lm.generate_until(requests, disable_tqdm=True)
        except torch.OutOfMemoryError:
            return None
        return answers

    def _halves(self, batch: list[Prompt]) -> Iterator[list[Prompt]]:
        """Yield the halves of a batch for which there is no memory.

        Raises:
            UserError: If the batch has a single prompt.
        """
        if len(batch) == 1:
            raise UserError(
                f"generative tasks: {self._lm.device} is out of memory with a single prompt of {batch[0].n_tokens} "
                "tokens; take a device with more memory, or evaluation.dtype bfloat16"
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(batch) // 2
        logger.warning("generative tasks: out of memory with %d prompts; going on with at most %d", len(batch), half)
        self._budget //= 2
        yield from (batch[:half], batch[half:])


def max_answer_tokens(settings: dict[str, Any]) -> int:
    """Return the most tokens of an answer with these `generation_kwargs`, as lm-eval reads them."""
    return int(normalize_gen_kwargs(settings, DEFAULT_MAX_TOKENS)["max_gen_toks"])


def check_answers_fit(name: str, settings: dict[str, Any] | None, limit: int) -> None:
    """Check that the longest answer of a generative task leaves room for a prompt.

    Args:
        name: Name of the task.
        settings: Its `generation_kwargs`.
        limit: The model's context, in tokens.

    Raises:
        UserError: If it does not.
    """
    n_tokens = max_answer_tokens(settings or {})
    if n_tokens >= limit:
        raise UserError(
            f"evaluation.tasks: an answer of {name!r} may have {n_tokens} tokens, but the model's context is {limit}, "
            "so there is no room for its question; leave it out"
        )


def _identity(prompt: Prompt) -> str:
    return repr((prompt.text, prompt.settings))
