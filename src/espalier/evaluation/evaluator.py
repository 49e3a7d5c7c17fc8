"""Evaluate one or several pruned versions of a model in one process: tasks and requests are loaded once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from espalier.evaluation.protocol import Protocol
from espalier.evaluation.requests import read_requests
from espalier.evaluation.run import Stopwatch, evaluate_model
from espalier.evaluation.tasks import load_tasks
from espalier.models.loading import choose_device, load_model, load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.planning.plan import Plan
from espalier.surgery import prune


class Evaluator:
    """A model folder, its requests and tasks.

    Args:
        manifest: Content of the model's manifest.
        requests: Tokenised requests.
        data_folder: Folder with `{task}/{split}.parquet`.
        protocol: Evaluation protocol.
        dtype: Type of the weights.
        device: `auto`, `cpu` or `cuda`.
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
        token_budget: int,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self._folder = check_unchanged(manifest)
        self._trust = manifest["trust_remote_code"]
        self._protocol = Protocol.from_dict(protocol)
        self._dtype, self._device, self._token_budget = dtype, choose_device(device), token_budget
        self._preparing = Stopwatch()
        with self._preparing.part("requests"):
            self._tokenizer = load_tokenizer(self._folder, trust_remote_code=self._trust)
            self._requests = read_requests(requests)
            self._scratch = tempfile.TemporaryDirectory()
            self._tasks = load_tasks(list(self._protocol.tasks), data_folder, Path(self._scratch.name))

    def evaluate(self, plan: Plan | None) -> tuple[dict[str, Any], pd.DataFrame]:
        """Load the weights, cut them in memory, and evaluate.

        Args:
            plan: What to keep; None evaluates the unpruned model.

        Returns:
            The content of `metrics.json` (without names and recipe), and the table of samples.

        Raises:
            UserError: If the plan does not fit, or a log-likelihood is not finite.
        """
        stopwatch, self._preparing = self._preparing, Stopwatch()
        with stopwatch.part("load"):
            model = load_model(self._folder, dtype=self._dtype, device=self._device, trust_remote_code=self._trust)
            if plan is not None:
                prune(model, plan.kept_kv_groups, plan.kept_mlp_channels)
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
