"""Scoring of requests: pack them into batches and run the model.

The host prepares the next batch while the device computes the current one. Results stay on the device until the end.
When the device is out of memory, the remaining requests are packed again into batches of half the tokens.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from espalier.errors import UserError
from espalier.models.context import context_length, length_thresholds, scales_with_length
from espalier.progress import Progress
from espalier.scoring.attention import Attention
from espalier.scoring.head import decoder_bypassed, positions_at_once, score_tokens
from espalier.scoring.onednn import fast_linear
from espalier.scoring.pack import Batch, BatchArrays, choose_batches, make_batches, to_arrays
from espalier.scoring.prefix import KeysAndValues, SharedPrefix, compute_prefix, find_prefixes
from espalier.scoring.requests import Integers, Request, Score
from espalier.scoring.tree import build_forest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

_BATCH_TOKENS = {"cpu": 2048}
"""Most tokens of a batch on the CPU. Larger batches do not fit in its caches and are not faster
(benchmarks/zeroshot.py)."""
_LOGITS = {"cpu": 1 << 23, "cuda": 1 << 28}
"""Most logits in memory at once."""
_TREE = 512
"""A tree with more tokens than this is cut if the cut repeats few tokens."""
_WIDEST = 4096
"""A tree with branches and more tokens than this is always cut. The size of its mask is the square of its tokens."""
_AHEAD = 2
"""Batches that the host may be ahead of a GPU. With more, the progress bar would run ahead of the GPU."""


class BatchScores(NamedTuple):
    """Results of one batch.

    Attributes:
        scores: Log-probability of each scored token, on the device: (scored,).
        hits: Whether each scored token is the most probable one, on the device: (scored,).
        request: Index of the request of each scored token, on the host: (scored,).
    """

    scores: torch.Tensor
    hits: torch.Tensor
    request: Integers


def score_requests(
    model: PreTrainedModel,
    requests: Sequence[Request],
    *,
    token_budget: int,
    what: str = "scoring",
    width: int | None = None,
) -> list[Score]:
    """Score requests. A prefix that several requests share is computed once.

    Args:
        model: A causal language model.
        requests: Requests to score.
        token_budget: Most tokens of a batch, padding included. A single sequence that is longer still runs.
        what: Name of the work, for the progress bar and for messages.
        width: Tokens of a row. None chooses the width with the lowest cost.

    Returns:
        One score per request, in the same order. A log-likelihood may be NaN or infinite. The caller must check it,
        because only the caller can name the document.

    Raises:
        UserError: If the context or continuation of a request is empty, if a continuation is longer than the model's
            context, if the model's attention is not supported, or if the device is out of memory with a single
            sequence.
    """
    run = _Run(model, requests, token_budget, what, width)
    with torch.inference_mode(), fast_linear(model):
        return run.scores()


def break_even_width(config: PretrainedConfig) -> float:
    """Return the row width, in tokens, at which attention costs as much as the matrix products of a layer.

    With hidden size h and MLP width m, the matrix products take about 2 (4 h^2 + 3 h m) operations per token. Attention
    takes 4 h w operations per token for row width w. The sizes of the unpruned model are used, so that all experiments
    of a model choose between row widths by the same cost. If layers of the unpruned model differ in size, as in an
    exported model that is pruned again, these are the sizes at the top level of its config.
    """
    # A config raises an error if a size that differs between layers is read as an attribute.
    differs = getattr(config, "is_heterogeneous", False)
    mlp_width = config.to_dict()["intermediate_size"] if differs else config.intermediate_size
    return float(4 * config.hidden_size + 3 * mlp_width) / 2


class _Run:
    """State of one call of `score_requests`."""

    def __init__(
        self, model: PreTrainedModel, requests: Sequence[Request], token_budget: int, what: str, width: int | None
    ) -> None:
        kind = "cpu" if model.device.type == "cpu" else "cuda"
        self._model, self._requests, self._what = model, requests, what
        self._attention = Attention.from_model(model)
        self._limit = context_length(model)
        self._width = width
        self._budget = min(token_budget, _BATCH_TOKENS.get(kind, token_budget))
        self._max_logits = _LOGITS[kind]
        self._needs_positions = scales_with_length(model.config)
        # Rotary positions that depend on the longest sequence of a batch would differ between a prefix and its batches.
        self._shares_prefixes = width is None and not self._needs_positions
        self._done = np.zeros(len(requests), dtype=bool)
        self._found: list[BatchScores] = []

    def scores(self) -> list[Score]:
        """Score all requests."""
        for group in self._groups():
            while not self._done[group].all():
                self._score(group[~self._done[group]])
        return self._collect()

    def _groups(self) -> list[Integers]:
        """Group requests by the rotary frequencies that their lengths need. A batch has requests of one group only."""
        thresholds = length_thresholds(self._model.config)
        lengths = [min(len(request.context) + len(request.continuation) - 1, self._limit) for request in self._requests]
        group = np.searchsorted(np.array(thresholds, dtype=np.int64), np.array(lengths, dtype=np.int64))
        return [np.flatnonzero(group == number) for number in range(len(thresholds) + 1)]

    def _score(self, remaining: Integers) -> None:
        """Score the requests with these indices, until all are scored or the device is out of memory."""
        requests = [self._requests[i] for i in remaining.tolist()]
        widest = min(_WIDEST, self._budget)
        groups = find_prefixes(requests, limit=self._limit, widest=widest) if self._shares_prefixes else []
        for group in groups:
            if not self._score_after_prefix(group, remaining[group.requests]):
                return
        grouped = np.zeros(len(requests), dtype=bool)
        for group in groups:
            grouped[group.requests] = True
        rest = np.flatnonzero(~grouped)
        if len(rest):
            self._score_trees([requests[i] for i in rest.tolist()], remaining[rest])

    def _score_after_prefix(self, group: SharedPrefix, indices: Integers) -> bool:
        """Compute a prefix, and score the requests that share it. Return whether the memory was enough."""
        try:
            prefix = self._compute_prefix(group.tokens)
        except torch.OutOfMemoryError:
            self._shares_prefixes = False
            logger.warning(
                "%s: out of memory with a prefix of %d tokens; going on without", self._what, len(group.tokens)
            )
            return False
        return self._score_trees(group.suffixes, indices, prefix)

    def _compute_prefix(self, tokens: Integers) -> KeysAndValues:
        on_device = self._to_device(tokens.astype(np.int64), self._model.device)[None]
        depth = torch.arange(len(tokens), device=on_device.device, dtype=torch.int32)[None]
        mask = self._attention.mask(depth, torch.full_like(depth, len(tokens)))
        return compute_prefix(self._model, on_device, mask)

    def _score_trees(self, requests: Sequence[Request], indices: Integers, prefix: KeysAndValues | None = None) -> bool:
        """Score requests, and return whether the memory was enough for all of them.

        Args:
            requests: The requests, or what follows the prefix in each of them.
            indices: Their numbers among all requests.
            prefix: Prefix of all of them.
        """
        forest = build_forest(
            requests, limit=self._limit, width=min(_TREE, self._budget), widest=min(_WIDEST, self._budget)
        )
        if prefix is not None:  # wide rows, because each row gets a copy of the prefix
            batches = make_batches(forest, width=min(_TREE, self._budget), token_budget=self._budget)
        elif self._width is None:
            batches = choose_batches(forest, token_budget=self._budget, break_even=break_even_width(self._model.config))
        else:
            batches = make_batches(forest, width=min(self._width, self._budget), token_budget=self._budget)
        lead = _HostLead(self._model.device)
        with Progress(self._what, total=int(forest.sizes.sum()), unit="tokens") as progress:
            for batch in batches:
                is_causal = batch.is_causal and not self._needs_positions and prefix is None
                found = self._score_or_none(to_arrays(forest, batch), is_causal=is_causal, prefix=prefix)
                if found is None:
                    self._use_less_memory(batch)
                    return False
                request = indices[found.request]
                self._found.append(found._replace(request=request))
                self._done[request] = True
                lead.limit()
                progress.advance(int(sum(forest.sizes[tree] for row in batch.rows for tree in row)))
        return True

    def _score_or_none(
        self, arrays: BatchArrays, *, is_causal: bool, prefix: KeysAndValues | None = None
    ) -> BatchScores | None:
        """Score a batch, or return None if the device is out of memory.

        Returning from this function frees the tensors of the failed batch.
        """
        try:
            return self._run(arrays, is_causal=is_causal, prefix=prefix)
        except torch.OutOfMemoryError:
            return None

    def _run(self, arrays: BatchArrays, *, is_causal: bool, prefix: KeysAndValues | None) -> BatchScores:
        tokens, depth, end = self._to_device(arrays.nodes, self._model.device).unbind()
        n_prefix = 0 if prefix is None else prefix.n_tokens
        depth = depth + n_prefix
        extra: dict[str, Any] = {}
        if not is_causal:  # without a mask and positions, transformers uses its faster path for plain causal attention
            mask = self._attention.mask(depth, end, n_prefix)
            extra = {"attention_mask": mask, "position_ids": depth.long(), "past_key_values": prefix}
        states = self._model.get_decoder()(input_ids=tokens.long(), use_cache=False, **extra).last_hidden_state
        # The last layers of a model on several devices are on another device than the first ones.
        position, index, target = (
            self._to_device(array, states.device) for array in (arrays.position, arrays.index, arrays.target)
        )
        hidden = states.flatten(0, 1).index_select(0, position)
        with decoder_bypassed(self._model) as head:
            scores, hits = score_tokens(head, hidden, index, target.long(), self._pieces(arrays))
        return BatchScores(scores, hits, arrays.request)

    def _pieces(self, arrays: BatchArrays) -> list[tuple[int, int, int, int]]:
        """Cut the scored positions into pieces whose logits fit in `_max_logits`.

        Returns:
            For each piece: begin and end of its positions, then begin and end of its scored tokens.
        """
        step = positions_at_once(self._max_logits, self._model)
        bounds = [*range(0, len(arrays.position), step), len(arrays.position)]
        tokens = np.searchsorted(arrays.index, bounds).tolist()
        return list(zip(bounds, bounds[1:], tokens, tokens[1:], strict=False))

    @staticmethod
    def _to_device(array: Integers, device: torch.device) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

    def _use_less_memory(self, batch: Batch) -> None:
        """Halve the token budget and the number of logits after `batch` ran out of memory.

        Raises:
            UserError: If the batch was a single sequence.
        """
        if len(batch.rows) == 1 and batch.is_causal:
            raise UserError(
                f"{self._what}: {self._model.device} is out of memory with a single sequence of {batch.width} tokens; "
                "take a device with more memory, evaluation.dtype bfloat16, or a smaller evaluation.perplexity.window"
            )
        self._budget = min(self._budget, batch.n_tokens) // 2
        self._max_logits //= 2
        logger.warning(
            "%s: out of memory with a batch of %d tokens; going on with at most %d (evaluation.token_budget)",
            self._what, batch.n_tokens, self._budget,
        )  # fmt: skip
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _collect(self) -> list[Score]:
        """Copy all results to the host and sum them per request in float64."""
        if not self._found:
            return []
        request = np.concatenate([found.request for found in self._found])
        scores = torch.cat([found.scores for found in self._found]).cpu().numpy()
        misses = ~torch.cat([found.hits for found in self._found]).cpu().numpy()
        sums = np.bincount(request, weights=scores, minlength=len(self._requests))
        n_missed = np.bincount(request, weights=misses, minlength=len(self._requests))
        return [Score(total, n == 0) for total, n in zip(sums.tolist(), n_missed.tolist(), strict=True)]


class _HostLead:
    """Limits how many batches the host is ahead of a GPU. It never waits for the newest batch."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._events: deque[torch.cuda.Event] = deque()

    def limit(self) -> None:
        """Record the end of the newest batch, and wait for an earlier batch if the host is too far ahead."""
        if self._is_cuda:
            self._events.append(torch.cuda.Event())
            self._events[-1].record()
            if len(self._events) > _AHEAD:
                self._events.popleft().synchronize()
