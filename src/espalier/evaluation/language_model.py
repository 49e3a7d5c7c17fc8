"""Models for lm-evaluation-harness.

`RequestEncoder` only tokenises requests. `EspalierLM` scores them, and answers generative tasks. `AnsweredLM` and
`GeneratedLM` return known answers.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from espalier.errors import UserError
from espalier.evaluation.chat_templates import write_prompt
from espalier.evaluation.generation import Generator, Prompt
from espalier.evaluation.stopwatch import Stopwatch
from espalier.evaluation.tokenised_requests import RequestKey, TokenisedRequests
from espalier.models.context import context_length
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request, Score, is_truncated

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

EncodedPair = tuple[tuple[str, str], list[int], list[int]]
"""A request of lm-eval: context and continuation as text, tokens of the context, tokens of the continuation."""


class _TokenizingLM(TemplateLM):
    """Base class that tokenises text by the rules of lm-eval's `hf` backend."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, add_bos: bool | None) -> None:
        super().__init__()
        if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
            raise UserError(
                f"{tokenizer.name_or_path}: its tokenizer has neither a BOS nor an EOS token, and lm-eval needs one to "
                "stand for an empty context; name one in tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.add_bos = add_bos
        self._apart: set[tuple[str, str]] = set()  # (context, continuation) that were tokenised separately

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Token that replaces an empty context: BOS, or EOS if the tokenizer has no BOS."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokenise a text.

        If `add_special_tokens` is None, `add_bos` (or the tokenizer's default) determines whether special tokens are
        added. A text that already begins with the text of the prefix token gets none.
        """
        special = _add_special_kwargs(add_special_tokens, self.add_bos)
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            special["add_special_tokens"] = False
        return self.tokenizer.encode(string, **special)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenise context and continuation.

        lm-eval tokenises the context alone, which gives n tokens, and then both texts together. Of the latter, the
        tokens after the first n are the continuation. No tokens are left if one token covers the end of the context and
        the whole continuation. In this case, the continuation is tokenised separately
        (EleutherAI/lm-evaluation-harness#4055), and the pair is recorded.
        """
        context_tokens, continuation_tokens = super()._encode_pair(context, continuation)
        if not continuation_tokens and continuation:
            stripped = context.rstrip()  # lm-eval moves spaces at the end of the context to the continuation
            continuation_tokens = self.tok_encode(context[len(stripped) :] + continuation, add_special_tokens=False)
            self._apart.add((context, continuation))
        return context_tokens, continuation_tokens

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return write_prompt(self.tokenizer, chat_history, add_generation_prompt=add_generation_prompt)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError("only EspalierLM and GeneratedLM answer generative tasks")


class RequestEncoder(_TokenizingLM):
    """A model that records the tokens of every request that lm-eval sends, and returns a log-likelihood of 0 for each.

    Attributes:
        encoded: Tokenised requests by their keys.
        n_encoded_apart: Number of requests whose continuation was tokenised separately from its context, by task.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, add_bos: bool | None) -> None:
        super().__init__(tokenizer, add_bos)
        self.encoded: dict[RequestKey, Request] = {}
        self.n_encoded_apart: Counter[str] = Counter()

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        self._keys = [request_key(instance) for instance in requests]
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list[EncodedPair], **kwargs: Any) -> list[tuple[float, bool]]:
        for key, (pair, context, continuation) in zip(self._keys, requests, strict=True):
            self.encoded[key] = Request(context, continuation)
            if not continuation:
                raise UserError(
                    f"{key.document}, choice {key.choice}: its continuation {pair[1]!r} has no tokens to score; "
                    "correct the document or take it out of the data"
                )
            if pair in self._apart:
                self.n_encoded_apart[key.task] += 1
        return [(0.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> NoReturn:
        raise UserError("evaluation.tasks: rolling tasks are not evaluated; see evaluation.perplexity")


class EspalierLM(_TokenizingLM):
    """A model in memory that scores the requests of lm-eval.

    Args:
        model: A causal language model.
        tokenizer: Tokenizer of the model.
        add_bos: Whether texts begin with BOS. None uses the tokenizer's default.
        token_budget: Most tokens per forward pass.
        requests: Tokenised requests. If None, requests are tokenised when they are scored.
        stopwatch: Stopwatch to switch to `forward` when scoring begins, and to `metrics` when it ends.

    Attributes:
        n_truncated: Number of documents with a request that was truncated to the model's context, by task.
        n_encoded_apart: Number of requests whose continuation was tokenised separately from its context, by task.
            Tasks without such requests are left out.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        add_bos: bool | None,
        token_budget: int,
        requests: TokenisedRequests | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        super().__init__(tokenizer, add_bos)
        self.model = model
        self.token_budget = token_budget
        self.n_truncated: Counter[str] = Counter()
        self.n_encoded_apart = {} if requests is None else dict(requests.n_encoded_apart)
        self._requests = requests
        self._stopwatch = stopwatch or Stopwatch()

    @cached_property
    def generator(self) -> Generator:
        """Generator of answers to generative tasks."""
        return Generator(self.model, self.tokenizer, add_bos=self.add_bos, token_budget=self.token_budget)

    @property
    def max_length(self) -> int:
        """The model's context, in tokens."""
        return context_length(self.model)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Score the (context, continuation) pairs of lm-eval's requests.

        Returns:
            For each request: log-likelihood (nats) of its continuation, and whether every token of the continuation is
            the most probable one.

        Raises:
            UserError: If a log-likelihood is not finite, a request was not tokenised, or a continuation is empty or
                longer than the model's context. The message names the document.
        """
        keys = [request_key(instance) for instance in requests]
        return [(score.loglikelihood, score.is_greedy) for score in self.answer(keys, self._encode(requests, keys))]

    def answer(self, keys: Sequence[RequestKey], requests: Sequence[Request]) -> list[Score]:
        """Score tokenised requests.

        Args:
            keys: Keys of the requests.
            requests: The requests.

        Raises:
            UserError: As `loglikelihood`.
        """
        self._check(keys, requests)
        scores = self._score(list(requests), "multiple-choice tasks")
        for key, score in zip(keys, scores, strict=True):
            _check_loglikelihood_finite(score.loglikelihood, f"{key.document}, choice {key.choice}")
        return scores

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Answer the requests of generative tasks greedily. Prompts that are too long lose their beginning.

        Raises:
            UserError: If the device is out of memory with a single prompt.
        """
        return self.generate(
            [request_key(instance) for instance in requests], list(map(self.generator.prompt, requests))
        )

    def generate(self, keys: Sequence[RequestKey], prompts: Sequence[Prompt]) -> list[str]:
        """Answer prompts greedily, and count the documents whose prompt is truncated.

        Args:
            keys: Keys of the requests.
            prompts: Their prompts.

        Raises:
            UserError: As `generate_until`.
        """
        limit = self.generator.limit
        cut = {key[:2] for key, prompt in zip(keys, prompts, strict=True) if prompt.is_truncated(limit)}
        self._count_truncated(keys, cut)
        self._stopwatch.switch("forward")
        answers = self.generator.answer(prompts)
        self._stopwatch.switch("metrics")
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Score each token of whole texts once, in windows of the model's context. lm-eval's functions cut the windows.

        The perplexities of a study come from `espalier.evaluation.perplexity` instead.

        Returns:
            Log-likelihood (nats) of each text.

        Raises:
            UserError: If a log-likelihood is not finite. The message names the document.
        """
        windows, owners = [], []
        for owner, instance in enumerate(requests):
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(instance.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append(Request(*make_disjoint_window(window)))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, score in zip(owners, self._score(windows, "whole texts"), strict=True):
            totals[owner] += score.loglikelihood
        for instance, total in zip(requests, totals, strict=True):
            _check_loglikelihood_finite(total, request_key(instance).document)
        return totals

    def _score(self, requests: list[Request], what: str) -> list[Score]:
        self._stopwatch.switch("forward")
        scores = score_requests(self.model, requests, token_budget=self.token_budget, what=what)
        self._stopwatch.switch("metrics")
        return scores

    def _encode(self, requests: list[Instance], keys: Sequence[RequestKey]) -> list[Request]:
        if self._requests is not None:
            return [self._requests.find(key) for key in keys]
        encoder = RequestEncoder(self.tokenizer, self.add_bos)
        encoder.loglikelihood(requests)
        self.n_encoded_apart = dict(encoder.n_encoded_apart)
        return [encoder.encoded[key] for key in keys]

    def _check(self, keys: Sequence[RequestKey], requests: Sequence[Request]) -> None:
        """Check that continuations can be scored. Count and log the documents that will be truncated.

        Raises:
            UserError: If a continuation is empty or longer than the model's context.
        """
        limit = self.max_length
        for key, request in zip(keys, requests, strict=True):
            if not 0 < len(request.continuation) <= limit:
                raise UserError(
                    f"{key.document}, choice {key.choice}: has {len(request.continuation)} tokens to score; 1 to "
                    f"{limit} (the model's context) are allowed; take the document out of the data"
                )
        cut = {key[:2] for key, request in zip(keys, requests, strict=True) if is_truncated(request, limit)}
        self.n_truncated = Counter()
        self._count_truncated(keys, cut)

    def _count_truncated(self, keys: Sequence[RequestKey], cut: Collection[tuple[str, int]]) -> None:
        """Count and log truncated documents.

        Args:
            keys: Keys of all requests.
            cut: Task and number of each truncated document.
        """
        counts = Counter(task for task, _ in cut)
        self.n_truncated.update(counts)
        for task, count in sorted(counts.items()):
            n_documents = len({key.doc_id for key in keys if key.task == task})
            logger.warning(
                "task %s: %d of %d documents are longer than the model's context of %d tokens and lose their beginning",
                task, count, n_documents, self.max_length,
            )  # fmt: skip

    def _loglikelihood_tokens(self, requests: list[EncodedPair], **kwargs: Any) -> NoReturn:
        raise NotImplementedError("EspalierLM scores instances as a whole; call loglikelihood")


class _KnownAnswers(_TokenizingLM, Generic[Answer]):
    """A model whose answers are known already. lm-eval computes its metrics from them.

    Args:
        answers: Answer to each request.
        tokenizer: Tokenizer of the model.
        add_bos: Whether texts begin with BOS. None uses the tokenizer's default.

    Attributes:
        documents: Numbers of the answered documents, ascending, by task.
    """

    def __init__(
        self, answers: Mapping[RequestKey, Answer], tokenizer: PreTrainedTokenizerBase, add_bos: bool | None
    ) -> None:
        super().__init__(tokenizer, add_bos)
        numbers: dict[str, set[int]] = {}
        for key in answers:
            numbers.setdefault(key.task, set()).add(key.doc_id)
        self.documents = {task: sorted(found) for task, found in numbers.items()}
        self._answers = answers

    def _answer(self, instance: Instance) -> Answer:
        """Return the answer to a request. lm-eval counts only the documents that it was asked to take.

        Raises:
            UserError: If there is none: the task has changed.
        """
        task, number, choice = request_key(instance)
        key = RequestKey(task, self.documents[task][number], choice)
        if key not in self._answers:
            raise UserError(f"{key.document}: no answer to choice {choice}; the task has changed. Evaluate it again")
        return self._answers[key]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> NoReturn:
        raise UserError("evaluation.tasks: rolling tasks are not evaluated; see evaluation.perplexity")

    def _loglikelihood_tokens(self, requests: list[EncodedPair], **kwargs: Any) -> NoReturn:
        raise NotImplementedError("answers to whole requests are known; call loglikelihood or generate_until")


class AnsweredLM(_KnownAnswers[Score]):
    """A model whose answers to multiple-choice tasks are known already: to all choices of each document.

    Attributes:
        n_truncated: As for `EspalierLM`; set by the caller.
        n_encoded_apart: As for `EspalierLM`; set by the caller.
    """

    def __init__(
        self, answers: Mapping[RequestKey, Score], tokenizer: PreTrainedTokenizerBase, add_bos: bool | None
    ) -> None:
        super().__init__(answers, tokenizer, add_bos)
        self.n_truncated: Counter[str] = Counter()
        self.n_encoded_apart: dict[str, int] = {}

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return the known answers.

        Raises:
            UserError: If there is no answer to a choice: the task has changed.
        """
        return [(score.loglikelihood, score.is_greedy) for score in map(self._answer, requests)]


class GeneratedLM(_KnownAnswers[str]):
    """A model whose answers to generative tasks are known already."""

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Return the known answers.

        Raises:
            UserError: If there is no answer to a request: the task has changed.
        """
        return [self._answer(instance) for instance in requests]


def _check_loglikelihood_finite(loglikelihood: float, where: str) -> None:
    if not math.isfinite(loglikelihood):
        raise UserError(
            f"{where}: log-likelihood is {loglikelihood}; the model's weights or dtype overflow. Nothing was written"
        )


def request_key(instance: Instance) -> RequestKey:
    """Return the key of a request of lm-eval."""
    return RequestKey(instance.task_name or "", int(instance.doc_id or 0), int(instance.idx))
