"""Evaluate one or several pruned versions of a model in one process: tasks and requests are loaded once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from espalier.evaluation.language_model import EspalierLM
from espalier.evaluation.perplexity import PerplexityResult, measure_perplexity
from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC, Protocol, TextProtocol, mean_accuracy
from espalier.evaluation.requests import TokenisedRequests, read_requests
from espalier.evaluation.tasks import Tasks, load_tasks
from espalier.evaluation.timing import Stopwatch
from espalier.evaluation.zeroshot import evaluate_tasks
from espalier.files import sha256_of, write_result, write_table
from espalier.models.from_manifest import load_from_manifest, take_devices
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from espalier.recipe import SAMPLES_SHA256
from espalier.scoring.requests import Tokens
from espalier.tables import Samples


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Tasks,
    requests: TokenisedRequests,
    protocol: Protocol,
    token_budget: int,
    stopwatch: Stopwatch,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Evaluate a model by a protocol.

    Returns:
        The content of `metrics.json` (without names and recipe), and the table of samples.

    Raises:
        UserError: If the model gives a log-likelihood that is not finite, or the window exceeds its context.
    """
    lm = EspalierLM(
        model, tokenizer, add_bos=protocol.add_bos, token_budget=token_budget, requests=requests, stopwatch=stopwatch
    )
    with stopwatch.part("requests"):  # lm-eval writes its prompts; the model class says when it scores
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
            text.name: _describe(perplexity[text.name], text, protocol, tokenizer, requests.texts[text.name])
            for text in protocol.texts
        },
        "protocol": protocol.to_dict(),
    }
    return metrics, zeroshot.samples


def _describe(
    result: PerplexityResult,
    text: TextProtocol,
    protocol: Protocol,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Tokens,
) -> dict[str, Any]:
    """Return what is stored of the perplexity of one text: the number, how it came about, and its windows."""
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
    """Whether a text begins with BOS, by the tokenizer's own way or by `add_bos`."""
    return tokenizer.bos_token_id is not None and int(tokens[0]) == tokenizer.bos_token_id


def write_evaluation(
    metrics: dict[str, Any], samples: pd.DataFrame, *, metrics_path: str | Path, samples_path: str | Path
) -> None:
    """Write samples, then metrics with their checksum: metrics.json is there only when all is."""
    write_table(samples_path, Samples.validate(samples))
    write_result(metrics_path, {**metrics, SAMPLES_SHA256: sha256_of(samples_path)})


class Evaluator:
    """A model folder, its requests and tasks.

    Args:
        manifest: Content of the model's manifest.
        requests: Tokenised requests.
        data_folder: Folder with `{task}/{split}.parquet`.
        protocol: Evaluation protocol.
        dtype: Type of the weights.
        device: `auto`, `cpu` or `cuda`.
        gpus: GPUs to spread the model over.
        token_budget: Upper bound on tokens in a forward pass.
        threads: CPU threads.

    Raises:
        UserError: If something cannot be read, or there is no such device.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        *,
        requests: Path,
        data_folder: Path,
        protocol: dict[str, Any],
        dtype: str,
        device: str,
        gpus: int,
        token_budget: int,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self._manifest = manifest
        folder = check_unchanged(manifest)
        self._protocol = Protocol.from_dict(protocol)
        self._placing: dict[str, Any] = {"dtype": dtype, "device": device, "gpus": gpus}
        self._token_budget = token_budget
        take_devices(device, gpus)
        self._preparing = Stopwatch()
        with self._preparing.part("requests"):
            self._tokenizer = load_tokenizer(
                folder, trust_remote_code=manifest["trust_remote_code"], add_bos=self._protocol.add_bos
            )
            self._requests = read_requests(requests)
            self._scratch = tempfile.TemporaryDirectory()
            self._tasks = load_tasks(self._protocol.tasks, data_folder, Path(self._scratch.name))

    def evaluate(
        self, plan: Plan | None, adapt: Callable[[PreTrainedModel, Plan], PreTrainedModel] | None = None
    ) -> tuple[dict[str, Any], pd.DataFrame]:
        """Load the weights, cut them in memory, and evaluate.

        Args:
            plan: What to keep; None evaluates the unpruned model.
            adapt: Changes the pruned model before it is evaluated, such as by merging an adapter.

        Returns:
            The content of `metrics.json` (without names and recipe), and the table of samples.

        Raises:
            UserError: If the plan does not fit, or a log-likelihood is not finite; and what `adapt` raises.
        """
        stopwatch, self._preparing = self._preparing, Stopwatch()
        with stopwatch.part("load"):
            model = load_from_manifest(self._manifest, **self._placing)
            if plan is not None:
                prune(model, plan.kept_kv_groups, plan.kept_mlp_channels)
                if adapt is not None:
                    model = adapt(model, plan)
        metrics, samples = evaluate_model(
            model,
            self._tokenizer,
            tasks=self._tasks,
            requests=self._requests,
            protocol=self._protocol,
            token_budget=self._token_budget,
            stopwatch=stopwatch,
        )
        return {"n_params": model.num_parameters(), **metrics, "timing_s": stopwatch.seconds}, samples
