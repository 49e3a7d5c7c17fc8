"""Models as lm-evaluation-harness sees them: an encoder that only tokenises, and a model that scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

from jinja2.exceptions import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from espalier.errors import UserError
from espalier.evaluation.requests import RequestKey, TokenisedRequests
from espalier.scoring import Request, score_requests

EncodedPair = tuple[tuple[str, str], list[int], list[int]]


class _TokenizingLM(TemplateLM):
    """Encode text by the rules of lm-eval's `hf` backend."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, add_bos: bool | None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.add_bos = add_bos

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Token that stands in for an empty context: BOS, or end-of-text where there is no BOS."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        special = _add_special_kwargs(add_special_tokens, self.add_bos)
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            special["add_special_tokens"] = False
        return self.tokenizer.encode(string, **special)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        def render(history: list[dict[str, str]]) -> str:
            return self.tokenizer.apply_chat_template(
                history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )

        try:
            return render(chat_history)
        except TemplateError:  # a template that knows no system role, as lm-eval handles it
            return render([message for message in chat_history if message["role"] != "system"])

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> NoReturn:
        raise UserError("evaluation.tasks: tasks that generate text cannot be evaluated; name multiple-choice tasks")

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> NoReturn:
        raise UserError("evaluation.tasks: rolling tasks are not evaluated; see evaluation.perplexity")


class RequestEncoder(_TokenizingLM):
    """Tokenise every request of an evaluation and answer none: each gets the score 0."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, add_bos: bool | None) -> None:
        super().__init__(tokenizer, add_bos)
        self.encoded: dict[RequestKey, Request] = {}

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        self._keys = [_key(instance) for instance in requests]
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list[EncodedPair], **kwargs: Any) -> list[tuple[float, bool]]:
        for key, (_, context, continuation) in zip(self._keys, requests, strict=True):
            self.encoded[key] = Request(context, continuation)
        return [(0.0, False)] * len(requests)


class EspalierLM(_TokenizingLM):
    """A model in memory, pruned or not, that scores requests tokenised beforehand.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        add_bos: Whether texts begin with BOS; None is the tokenizer's own way.
        token_budget: Upper bound on tokens in a forward pass.
        requests: Requests tokenised beforehand; None to tokenise here.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        add_bos: bool | None,
        token_budget: int,
        requests: TokenisedRequests | None = None,
    ) -> None:
        super().__init__(tokenizer, add_bos)
        self.model = model
        self.token_budget = token_budget
        self._requests = requests

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Score (context, continuation) pairs.

        Raises:
            UserError: If a log-likelihood is not finite (naming the document), or a request was not tokenised.
        """
        keys = [_key(instance) for instance in requests]
        scores = score_requests(
            self.model, self._encode(requests, keys), token_budget=self.token_budget, what="zero-shot tasks"
        )
        for key, score in zip(keys, scores, strict=True):
            if not math.isfinite(score.loglikelihood):
                raise UserError(
                    f"task {key.task}, document {key.doc_id}, choice {key.choice}: log-likelihood is "
                    f"{score.loglikelihood}; the model's weights or dtype overflow. Nothing was written"
                )
        return [(score.loglikelihood, score.is_greedy) for score in scores]

    def _encode(self, requests: list[Instance], keys: Sequence[RequestKey]) -> list[Request]:
        if self._requests is not None:
            return [self._requests.find(key) for key in keys]
        encoder = RequestEncoder(self.tokenizer, self.add_bos)
        encoder.loglikelihood(requests)
        return [encoder.encoded[key] for key in keys]

    def _loglikelihood_tokens(self, requests: list[EncodedPair], **kwargs: Any) -> NoReturn:
        raise NotImplementedError("EspalierLM scores instances as a whole; call loglikelihood")


def _key(instance: Instance) -> RequestKey:
    return RequestKey(instance.task_name or "", int(instance.doc_id or 0), int(instance.idx))
