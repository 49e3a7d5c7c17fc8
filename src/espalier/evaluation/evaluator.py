"""Evaluation of one or several pruned versions of a model in one process. Tasks and requests are loaded once."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from espalier.evaluation.language_model import EspalierLM
from espalier.evaluation.perplexity import PerplexityResult, measure_perplexity
from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC, Protocol, TextProtocol, mean_accuracy
from espalier.evaluation.settings import EvaluatorSettings
from espalier.evaluation.stopwatch import Stopwatch
from espalier.evaluation.task_evaluation import evaluate_tasks
from espalier.evaluation.tasks import Tasks, load_tasks
from espalier.evaluation.tokenised_requests import TokenisedRequests, read_requests
from espalier.models.from_manifest import load_from_manifest, lock_and_choose_device
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.models.padding import pad_widths, width_multiple
from espalier.models.surgery import copy_sharing_tensors, prune
from espalier.planning.plan import Plan
from espalier.scoring.requests import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class EvaluationResult:
    """Results of an evaluation.

    Attributes:
        metrics: Content of `metrics.json` without names and recipe.
        samples: Table with one row per choice (`espalier.tables.Samples`).
    """

    metrics: dict[str, Any]
    samples: pd.DataFrame


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Tasks,
    requests: TokenisedRequests,
    protocol: Protocol,
    token_budget: int,
    stopwatch: Stopwatch,
) -> EvaluationResult:
    """Evaluate a model: zero-shot tasks and perplexity.

    Args:
        model: A causal language model.
        tokenizer: Tokenizer of the model.
        tasks: Loaded tasks.
        requests: Tokenised requests of the tasks and texts.
        protocol: Evaluation protocol.
        token_budget: Most tokens per forward pass.
        stopwatch: Stopwatch that records the time of each part.

    Returns:
        Metrics without `n_params` and `timing_s`, and samples.

    Raises:
        UserError: If a log-likelihood is not finite, a request was not tokenised, or the perplexity window is longer
            than the model's context.
    """
    lm = EspalierLM(
        model, tokenizer, add_bos=protocol.add_bos, token_budget=token_budget, requests=requests, stopwatch=stopwatch
    )
    with stopwatch.part("requests"):  # lm-eval writes prompts first; `EspalierLM` switches to "forward" and "metrics"
        zeroshot = evaluate_tasks(lm, tasks, protocol)
    with stopwatch.part("forward"):
        perplexity = {
            text.name: measure_perplexity(
                model,
                requests.texts[text.name],
                name=text.name,
                window=protocol.window,
                stride=protocol.stride,
                token_budget=token_budget,
                max_tokens=text.max_tokens,
                bos=protocol.bos,
                bos_token=tokenizer.bos_token_id,
            )
            for text in protocol.texts
        }
    metrics = {
        "tasks": zeroshot.tasks,
        "acc_mean": {
            "value": mean_accuracy(zeroshot.tasks, ACC_NORM_ELSE_ACC),
            "rule": ACC_NORM_ELSE_ACC,
            "n_tasks": len(zeroshot.tasks),
        },
        "perplexity": {
            text.name: _perplexity_entry(perplexity[text.name], text, protocol, tokenizer, requests.texts[text.name])
            for text in protocol.texts
        },
        "protocol": protocol.to_dict(),
    }
    return EvaluationResult(metrics, zeroshot.samples)


def _perplexity_entry(
    result: PerplexityResult,
    text: TextProtocol,
    protocol: Protocol,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Tokens,
) -> dict[str, Any]:
    """Return the entry of one text in `metrics.json`: perplexity, protocol, and the loss of each window."""
    own = "first" if begins_with_bos(tokenizer, tokens) else "none"
    bos = protocol.bos or own
    return {
        "value": result.value,
        "n_tokens": result.n_tokens,
        "window": protocol.window,
        "stride": protocol.stride,
        "max_tokens": text.max_tokens,
        "bos": bos,
        "begins_with_bos": bos != "none",
        "window_losses": result.window_losses.tolist(),
        "window_tokens": result.window_tokens.tolist(),
    }


def begins_with_bos(tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> bool:
    """Whether the tokens of a text begin with BOS."""
    return tokenizer.bos_token_id is not None and int(tokens[0]) == tokenizer.bos_token_id


class Evaluator:
    """The tokenizer, requests, tasks and weights of a model, loaded once to evaluate several versions of the model.

    Args:
        manifest: Content of the model's manifest.
        requests: File of tokenised requests.
        settings: Settings of the evaluator.

    Raises:
        UserError: If the model has changed since its manifest, requests or tasks cannot be read, or the device is not
            available.
    """

    def __init__(self, manifest: dict[str, Any], *, requests: Path, settings: EvaluatorSettings) -> None:
        torch.set_num_threads(settings.threads)
        self._manifest, self._settings = manifest, settings
        folder = check_unchanged(manifest)
        self._protocol = Protocol.from_dict(settings.protocol)
        lock_and_choose_device(settings.device, settings.gpus)
        self._unpruned: PreTrainedModel | None = None
        self._preparing = Stopwatch()
        with self._preparing.part("requests"):
            self._tokenizer = load_tokenizer(
                folder, trust_remote_code=manifest["trust_remote_code"], add_bos=self._protocol.add_bos
            )
            self._requests = read_requests(requests)
            self._scratch = tempfile.TemporaryDirectory()
            self._tasks = load_tasks(self._protocol.tasks, settings.data_folder, Path(self._scratch.name))

    def evaluate(
        self, plan: Plan | None, after_pruning: Callable[[PreTrainedModel, Plan], PreTrainedModel] | None = None
    ) -> EvaluationResult:
        """Prune the model in memory, and evaluate it.

        On a GPU, MLP widths are padded with zero channels (`espalier.models.padding`).

        Args:
            plan: Groups to keep. None evaluates the unpruned model.
            after_pruning: Function that changes the pruned model before it is evaluated, for example merges an
                adapter. Not called for the unpruned model.

        Raises:
            UserError: If the plan does not fit the model, or as `evaluate_model`. Errors of `after_pruning` pass
                through.
        """
        stopwatch, self._preparing = self._preparing, Stopwatch()
        with stopwatch.part("load"):
            model = self._model(shares_weights=after_pruning is None)
            if plan is not None:
                prune(model, plan.kept_kv_groups, plan.kept_mlp_channels, plan.removed_layers)
                if after_pruning is not None:
                    model = after_pruning(model, plan)
            n_params = model.num_parameters()  # of the plan, so before padding
            pad_widths(model, width_multiple(model.device, model.dtype))
        result = evaluate_model(
            model,
            self._tokenizer,
            tasks=self._tasks,
            requests=self._requests,
            protocol=self._protocol,
            token_budget=self._settings.token_budget,
            stopwatch=stopwatch,
        )
        metrics = {"n_params": n_params, **result.metrics, "timing_s": stopwatch.seconds}
        return EvaluationResult(metrics, result.samples)

    def _model(self, *, shares_weights: bool) -> PreTrainedModel:
        """Return an unpruned model that may be cut.

        The weights are read once: each model is a copy that shares all tensors until they are cut. They are read again
        each time if the copy may change tensors in place (`shares_weights` is false), if the layers are divided among
        several GPUs, whose hooks belong to one model, or if the GPU has no room for the weights and a cut copy.
        """
        gc.collect()  # frees the model before this one, whose modules may refer to each other
        if self._unpruned is not None and shares_weights:
            return copy_sharing_tensors(self._unpruned)
        settings = self._settings
        model = load_from_manifest(self._manifest, dtype=settings.dtype, device=settings.device, gpus=settings.gpus)
        is_divided = settings.gpus > 1 and model.device.type == "cuda"
        if not shares_weights or is_divided or not _has_room_for_copies(model):
            return model
        self._unpruned = model
        return copy_sharing_tensors(model)


def _has_room_for_copies(model: PreTrainedModel) -> bool:
    """Whether a GPU has room for the weights and a cut copy, with half of the weights' size left for activations."""
    if model.device.type != "cuda":
        return True
    n_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return bool(torch.cuda.mem_get_info(model.device)[0] > 1.5 * n_bytes)
