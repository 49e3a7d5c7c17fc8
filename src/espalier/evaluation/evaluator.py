"""Evaluate one or several pruned versions of a model in one process: tasks and requests are loaded once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from espalier.evaluation.protocol import Protocol
from espalier.evaluation.requests import read_requests
from espalier.evaluation.run import evaluate_model
from espalier.evaluation.tasks import load_tasks
from espalier.evaluation.timing import Stopwatch
from espalier.models.described import load_described, take_devices
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.planning.plan import Plan
from espalier.models.surgery import prune


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

    def evaluate(self, plan: Plan | None, adapter: Path | None = None) -> tuple[dict[str, Any], pd.DataFrame]:
        """Load the weights, cut them in memory, and evaluate.

        Args:
            plan: What to keep; None evaluates the unpruned model.
            adapter: Folder of an adapter to merge into the pruned model; None merges nothing.

        Returns:
            The content of `metrics.json` (without names and recipe), and the table of samples.

        Raises:
            UserError: If plan or adapter do not fit, or a log-likelihood is not finite.
        """
        stopwatch, self._preparing = self._preparing, Stopwatch()
        with stopwatch.part("load"):
            model = load_described(self._manifest, **self._placing)
            if plan is not None:
                prune(model, plan.kept_kv_groups, plan.kept_mlp_channels)
            if plan is not None and adapter is not None:
                from espalier.recovery.lora import merge_adapter

                model = merge_adapter(model, adapter, plan)
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
