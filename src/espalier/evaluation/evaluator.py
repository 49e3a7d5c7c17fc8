"""Evaluation of one or several pruned versions of a model in one process. Tasks and requests are loaded once."""

from __future__ import annotations

import gc
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from espalier.errors import UserError
from espalier.evaluation.build_requests import check_tokenizer
from espalier.evaluation.definitions import not_raced
from espalier.evaluation.document_cost import tokens_per_document
from espalier.evaluation.generation import check_answers_fit
from espalier.evaluation.language_model import AnsweredLM, EspalierLM
from espalier.evaluation.perplexity import PerplexityResult, measure_perplexity
from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC, Protocol, TextProtocol, mean_accuracy
from espalier.evaluation.settings import EvaluatorSettings
from espalier.evaluation.stopwatch import Stopwatch
from espalier.evaluation.task_evaluation import (
    MultipleChoiceResult,
    check_not_all_skipped,
    evaluate_answers,
    evaluate_generation,
    evaluate_tasks,
)
from espalier.evaluation.tasks import Tasks, load_tasks
from espalier.evaluation.tokenised_requests import RequestKey, TokenisedRequests, read_requests
from espalier.evaluation.too_long import without_too_long
from espalier.models.context import context_length, context_of_manifest
from espalier.models.from_manifest import load_from_manifest, lock_and_choose_device
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.models.padding import pad_widths, width_multiple
from espalier.models.surgery import copy_sharing_tensors, prune
from espalier.planning.plan import Plan
from espalier.scoring.compiled import compile_layers
from espalier.scoring.requests import Score, Tokens, is_truncated

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class EvaluationResult:
    """Results of an evaluation.

    Attributes:
        metrics: Content of `metrics.json` without names and recipe.
        samples: Table with one row per choice (`espalier.tables.Samples`).
        generations: Table with one row per answer to a generative task (`espalier.tables.Generations`); None if no task
            is generative.
    """

    metrics: dict[str, Any]
    samples: pd.DataFrame
    generations: pd.DataFrame | None = None


@dataclass(frozen=True)
class DocumentAnswers:
    """Answers of a model to some documents.

    Attributes:
        scores: Score of each request of these documents.
        perplexity: Entries of `metrics.json` of all texts; empty if not measured.
        n_params: Parameters of the model.
        timing_s: Seconds of each part of the work.
    """

    scores: Mapping[RequestKey, Score]
    perplexity: Mapping[str, Any]
    n_params: int
    timing_s: Mapping[str, float]


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
    """Evaluate a model: multiple-choice tasks, generative tasks and perplexity.

    Args:
        model: A causal language model.
        tokenizer: Tokenizer of the model.
        tasks: Loaded tasks.
        requests: Tokenised requests of the tasks and texts. If too long documents are skipped, they have none
            (`without_too_long`).
        protocol: Evaluation protocol.
        token_budget: Most tokens per forward pass.
        stopwatch: Stopwatch that records the time of each part.

    Returns:
        Metrics without `n_params` and `timing_s`, and samples.

    Raises:
        UserError: If a log-likelihood is not finite, a request was not tokenised, the perplexity window is longer than
            the model's context, or answers to a generative task are.
    """
    if tasks.generative is not None:
        for name, task in tasks.generative.leaves.items():
            check_answers_fit(name, task.get_config("generation_kwargs"), context_length(model))
    lm = EspalierLM(
        model, tokenizer, add_bos=protocol.add_bos, token_budget=token_budget, requests=requests, stopwatch=stopwatch
    )
    with stopwatch.part("requests"):  # lm-eval writes prompts first; `EspalierLM` switches to "forward" and "metrics"
        multiple_choice = (
            evaluate_tasks(lm, tasks, protocol)
            if requests.n_skipped is None
            else _evaluate_fitting(lm, tasks, requests, protocol)
        )
    with stopwatch.part("forward"):
        perplexity = _measure_perplexities(model, tokenizer, requests, protocol, token_budget)
    metrics = _metrics(multiple_choice, perplexity, protocol)
    if tasks.generative is None:
        return EvaluationResult(metrics, multiple_choice.samples)
    with stopwatch.part("requests"):
        generated = evaluate_generation(lm, tasks.generative, protocol)
    return EvaluationResult({**metrics, "generation": generated.tasks}, multiple_choice.samples, generated.answers)


def _evaluate_fitting(
    lm: EspalierLM, tasks: Tasks, requests: TokenisedRequests, protocol: Protocol
) -> MultipleChoiceResult:
    """Evaluate a model on the documents that have requests."""
    keys = [key for key in requests.requests if protocol.limit is None or key.doc_id < protocol.limit]
    check_not_all_skipped(keys, tasks.leaves, lm.max_length)
    scores = lm.answer(keys, [requests.requests[key] for key in keys])
    known = AnsweredLM(dict(zip(keys, scores, strict=True)), lm.tokenizer, protocol.add_bos)
    known.n_encoded_apart = dict(requests.n_encoded_apart)
    return evaluate_answers(known, tasks, protocol, requests.n_skipped)


def _metrics(
    multiple_choice: MultipleChoiceResult, perplexity: Mapping[str, Any], protocol: Protocol
) -> dict[str, Any]:
    return {
        "tasks": multiple_choice.tasks,
        "acc_mean": {
            "value": mean_accuracy(multiple_choice.tasks, ACC_NORM_ELSE_ACC),
            "rule": ACC_NORM_ELSE_ACC,
            "n_tasks": len(multiple_choice.tasks),
        },
        "perplexity": dict(perplexity),
        "protocol": protocol.to_dict(),
    }


def _measure_perplexities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: TokenisedRequests, protocol: Protocol,
    token_budget: int,
) -> dict[str, Any]:  # fmt: skip
    """Measure the perplexity of all texts: their entries in `metrics.json`."""
    entries = {}
    for text in protocol.texts:
        tokens = requests.texts[text.name]
        result = measure_perplexity(
            model,
            tokens,
            name=text.name,
            window=protocol.window,
            stride=protocol.stride,
            token_budget=token_budget,
            max_tokens=text.max_tokens,
            bos=protocol.bos,
            bos_token=tokenizer.bos_token_id,
        )
        entries[text.name] = _perplexity_entry(result, text, protocol, tokenizer, tokens)
    return entries


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
    """Return whether the tokens of a text begin with BOS."""
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
        self._evaluated: list[weakref.ref[nn.Module]] = []
        self._preparing = Stopwatch()
        with self._preparing.part("requests"):
            self._tokenizer = load_tokenizer(
                folder, trust_remote_code=manifest["trust_remote_code"], add_bos=self._protocol.add_bos
            )
            self._requests = read_requests(requests)
            check_tokenizer(requests, self._requests, self._tokenizer, self._protocol)
            if self._protocol.too_long == "skip":
                self._requests = without_too_long(self._requests, context_of_manifest(manifest))
            self._scratch = tempfile.TemporaryDirectory()
            self._tasks = load_tasks(
                self._protocol.tasks,
                settings.data_folder,
                Path(self._scratch.name),
                task_fewshots=self._protocol.task_fewshots,
            )

    def evaluate(
        self, plan: Plan | None, after_pruning: Callable[[PreTrainedModel, Plan], PreTrainedModel] | None = None
    ) -> EvaluationResult:
        """Prune the model in memory, and evaluate it.

        MLP widths may be padded with zero channels (`espalier.models.padding`).

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
            model, n_params = self._pruned_model(plan, after_pruning)
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
        return replace(result, metrics=metrics)

    def answer(self, plan: Plan, documents: Iterable[tuple[str, int]], *, with_perplexity: bool) -> DocumentAnswers:
        """Prune the model in memory, and answer some of the documents.

        Args:
            plan: Groups to keep.
            documents: Task and number of each document.
            with_perplexity: Whether to measure the perplexity of the texts, too.

        Raises:
            UserError: As `evaluate`.
        """
        wanted = set(documents)
        stopwatch, self._preparing = self._preparing, Stopwatch()
        with stopwatch.part("load"):
            model, n_params = self._pruned_model(plan, None)
        lm = EspalierLM(
            model, self._tokenizer, add_bos=self._protocol.add_bos, token_budget=self._settings.token_budget,
            requests=self._requests, stopwatch=stopwatch,
        )  # fmt: skip
        keys = [key for key in self._requests.requests if (key.task, key.doc_id) in wanted]
        with stopwatch.part("forward"):
            scores = lm.answer(keys, [self._requests.requests[key] for key in keys]) if keys else []
            perplexity = {}
            if with_perplexity:
                perplexity = _measure_perplexities(
                    model, self._tokenizer, self._requests, self._protocol, self._settings.token_budget
                )
        return DocumentAnswers(dict(zip(keys, scores, strict=True)), perplexity, n_params, stopwatch.seconds)

    def summarise(self, answers: DocumentAnswers) -> EvaluationResult:
        """Compute the results of an evaluation from the answers to some of its documents. Loads no weights.

        Raises:
            UserError: If a task has no answers, or the task has changed.
        """
        lm = AnsweredLM(answers.scores, self._tokenizer, self._protocol.add_bos)
        # Counted here, because some of the documents may have been answered for a later rung, or by an older race.
        limit, requests = context_of_manifest(self._manifest), self._requests.requests
        cut = {key[:2] for key in answers.scores if key in requests and is_truncated(requests[key], limit)}
        lm.n_truncated.update(Counter(task for task, _ in cut))
        lm.n_encoded_apart = dict(self._requests.n_encoded_apart)
        multiple_choice = evaluate_answers(lm, self._tasks, self._protocol, self._requests.n_skipped)
        metrics = {"n_params": answers.n_params, **_metrics(multiple_choice, answers.perplexity, self._protocol)}
        return EvaluationResult({**metrics, "timing_s": dict(answers.timing_s)}, multiple_choice.samples)

    @property
    def documents(self) -> frozenset[tuple[str, int]]:
        """Task and number of each document of the protocol."""
        return frozenset((key.task, key.doc_id) for key in self._requests.requests)

    def blank_samples(self) -> pd.DataFrame:
        """Return the samples table of all documents, with a log-likelihood of 0 for every choice. Loads no weights."""
        scores = dict.fromkeys(self._requests.requests, Score(0.0, is_greedy=False))
        lm = AnsweredLM(scores, self._tokenizer, self._protocol.add_bos)
        return evaluate_answers(lm, self._tasks, self._protocol).samples

    def race_facts(self) -> dict[str, dict[str, Any]]:
        """Return what a race needs to know about each task or group (`espalier.results.race_store.TaskFacts`).

        Raises:
            UserError: If a task is generative, or all documents of a task are skipped.
        """
        if self._tasks.generative is not None:
            raise UserError(not_raced(self._tasks.generative.reported[0]))
        if self._requests.n_skipped:
            check_not_all_skipped(self._requests.requests, self._tasks.leaves, context_of_manifest(self._manifest))
        requests = self._requests.requests
        tokens = tokens_per_document(requests)
        documents = Counter(task for task, _ in {(key.task, key.doc_id) for key in requests})
        facts: dict[str, dict[str, Any]] = {}
        for name in self._tasks.reported:
            members = self._tasks.members(name)
            n_documents = sum(documents[member] for member in members)
            strata = [[member, documents[member]] for member in members]
            facts[name] = {
                "n_documents": n_documents,
                "tokens": sum(documents[member] * tokens[member] for member in members) / n_documents,
                "metric": "acc_norm" if "acc_norm" in self._tasks.metric_names(name) else "acc",
                **({} if name in self._tasks.leaves else {"strata": strata}),
            }
        return facts

    def _pruned_model(
        self, plan: Plan | None, after_pruning: Callable[[PreTrainedModel, Plan], PreTrainedModel] | None
    ) -> tuple[PreTrainedModel, int]:
        """Return a model to evaluate, and its number of parameters."""
        model = self._model(shares_weights=after_pruning is None)
        if plan is not None:
            prune(model, *plan.kept_units)
            if after_pruning is not None:
                model = after_pruning(model, plan)
        n_params = model.num_parameters()  # of the plan, so before padding
        pad_widths(model, width_multiple(model.device, model.dtype))
        if self._settings.compile_layers:
            compile_layers(model)
        self._evaluated = [weakref.ref(module) for module in model.modules()]
        return model, n_params

    def _model(self, *, shares_weights: bool) -> PreTrainedModel:
        """Return an unpruned model that may be cut.

        The weights are read once: each model is a copy that shares all tensors until they are cut. They are read again
        each time if the copy may change tensors in place (`shares_weights` is false), if the layers are divided among
        several GPUs, whose hooks belong to one model, or if the GPU has no room for the weights and a cut copy.
        """
        # A collection frees the model before this one if its modules refer to each other, and what an error left on a
        # GPU. It looks at half a million objects of libraries, which takes longer than to cut a small model.
        on_cpu = self._unpruned is not None and self._unpruned.device.type == "cpu"
        if not on_cpu or any(module() is not None for module in self._evaluated):
            gc.collect()
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
    """Return whether a GPU has room for the weights, a cut copy, and activations of half of their size."""
    if model.device.type != "cuda":
        return True
    n_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return bool(torch.cuda.mem_get_info(model.device)[0] > 1.5 * n_bytes)
