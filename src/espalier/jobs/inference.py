"""Job that measures inference speed and memory of a pruned model against its unpruned model."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espalier.errors import UserError
from espalier.files import read_json
from espalier.models.from_manifest import load_from_manifest
from espalier.planning.plan import Plan
from espalier.recipe import inference_settings, make_recipe
from espalier.results.verify import BEST_EXPERIMENT, read_best_experiment
from espalier.serving.inference_summary import PADDED, Workload, summarise_runs
from espalier.serving.inference_timing import kv_cache_bytes_per_token, measure, versions_of, weights_bytes
from espalier.serving.verdict import RECOMMENDED_MULTIPLE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
_HEADER_FIELDS = ("model", "experiment", "pruning_ratio", "removed_param_fraction")


def chosen_plan(choice: Path, experiments: Path) -> dict[str, Any]:
    """Read the plan to measure.

    Args:
        choice: File `plan.json`, or file `global_best_config.json`, which names the best experiment.
        experiments: Folder of the experiments of the model.

    Raises:
        UserError: If `global_best_config.json` names no best experiment.
    """
    content = read_best_experiment(choice) if choice.name == BEST_EXPERIMENT else read_json(choice)
    if "layers" in content:
        return content
    if content["best"] is None:
        raise UserError(
            f"inference: model {content['model']!r} has no valid experiment, so none is the best; name one under "
            "inference.experiments"
        )
    plan: dict[str, Any] = read_json(experiments / content["best"]["experiment"] / "plan.json")
    return plan


def measure_plan(
    manifest: Mapping[str, Any],
    content: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
    dtype: str,
    device: str,
    gpus: int,
) -> dict[str, Any]:
    """Measure the pruned model of a plan and the unpruned model.

    Args:
        manifest: Content of the model's manifest.
        content: Content of `plan.json`.
        settings: Section `inference` of the config, without the names of experiments.
        dtype: Dtype of the weights.
        device: `auto`, `cpu` or `cuda`.
        gpus: Number of GPUs that hold each version of the model.

    Returns:
        The content of the result file, with its recipe.

    Raises:
        UserError: If the plan does not fit the model, or a batch does not fit in memory.
    """
    torch.set_num_threads(settings["threads"])
    workload = Workload(**{key: settings[key] for key in ("batch_sizes", "prompt_tokens", "new_tokens", "repeats")})
    plan = Plan.from_dict(content)
    model = load_from_manifest(manifest, dtype=dtype, device=device, gpus=gpus)
    models = versions_of(model, *plan.kept_units, multiple=RECOMMENDED_MULTIPLE)
    runs = measure(models, workload)
    found = {
        **{key: content[key] for key in _HEADER_FIELDS},
        "machine": machine(model, settings["threads"]),
        "load": asdict(workload),
        "padded_to": RECOMMENDED_MULTIPLE if PADDED in models else None,
        "models": {name: sizes(one) for name, one in models.items()},
        "batches": summarise_runs(runs, list(models), workload),
        "runs": [asdict(run) for run in runs],
        "recipe": make_recipe(**inference_settings(manifest, content, dtype=dtype)),
    }
    for batch in found["batches"]:
        for one in batch["gains"]:
            low, high = one["interval"]
            logger.info(
                "batch %d, %s of %s to %s: %.3f (%.3f to %.3f): %s",
                batch["batch_size"], one["speed"], one["of"], one["to"], one["ratio"], low, high, one["outcome"],
            )  # fmt: skip
    return found


def sizes(model: PreTrainedModel) -> dict[str, int]:
    """Return the number of parameters, the bytes of the weights, and the bytes of the KV cache per token, by name."""
    return {
        "n_params": model.num_parameters(),
        "weights_bytes": weights_bytes(model),
        "kv_cache_bytes_per_token": kv_cache_bytes_per_token(model),
    }


def machine(model: PreTrainedModel, threads: int) -> dict[str, Any]:
    """Return device, name, threads and dtype that a model runs with, by name. `threads` is None on a GPU."""
    on_gpu = model.device.type == "cuda"
    return {
        "device": model.device.type,
        "name": torch.cuda.get_device_name(model.device) if on_gpu else platform.machine(),
        "threads": None if on_gpu else threads,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
