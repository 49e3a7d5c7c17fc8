"""Recovery job: fine-tune a pruned model, and write its adapter or weights and a record of the training."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espalier.config.recovery import FULL
from espalier.files import read_json, sha256_of, write_result
from espalier.jobs.resources import JobResources
from espalier.models.context import check_fits_context
from espalier.models.from_manifest import load_from_manifest
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from espalier.recipe import make_recipe, recovery_settings
from espalier.recovery.distillation import DistillationLosses
from espalier.recovery.dtype import check_trainable
from espalier.recovery.fine_tuning import SequenceLosses, TrainingRecord, TrainingSchedule, fine_tune
from espalier.recovery.fingerprint import recovered_fingerprint
from espalier.recovery.full import prepare_full, products_in, save_weights
from espalier.recovery.lora import LoraSettings, attach, save_adapter
from espalier.recovery.training_sequences import TrainingTextSettings, load_training_sequences
from espalier.study.host_memory import stored_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
SCHEDULE_SETTINGS = ("epochs", "batch_size", "learning_rate", "warmup_fraction", "max_grad_norm", "seed")
LORA_SETTINGS = ("rank", "alpha", "dropout", "target_modules", "seed")
TEXT_SETTINGS = ("text_field", "seed", "calibration_seeds", "seq_len", "n_sequences")


@dataclass(frozen=True)
class RecoveryJob:
    """Inputs and settings of a recovery job.

    Attributes:
        manifest: File of the model's manifest.
        plan: File of the experiment's plan.
        text: File of the training text.
        settings: All settings that determine the result (`RecoverySettings.settings`).
        resources: `device`, `gpu`, `token_budget` and `checkpointing`.
        threads: CPU threads.
    """

    manifest: str
    plan: str
    text: str
    settings: Mapping[str, Any]
    resources: JobResources
    threads: int

    @classmethod
    def from_snakemake(cls, snakemake: Any) -> RecoveryJob:
        """Create the job from the `snakemake` object of a script."""
        return cls(
            manifest=snakemake.input.manifest,
            plan=snakemake.input.plan,
            text=snakemake.input.text,
            settings=snakemake.params.settings,
            resources=JobResources.from_snakemake(snakemake),
            threads=snakemake.threads,
        )

    @property
    def text_settings(self) -> TrainingTextSettings:
        """Settings of the sequences to train on. `add_bos` is among the job's settings only if the config sets it."""
        return TrainingTextSettings(**self.select(TEXT_SETTINGS), add_bos=self.settings.get("add_bos"))

    @property
    def trains_all(self) -> bool:
        """Whether all weights are trained; otherwise, or without the setting `method`, adapters are."""
        return bool(self.settings.get("method") == FULL)

    def select(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the settings with these names."""
        return {name: self.settings[name] for name in names}


def run_recovery(snakemake: Any) -> None:
    """Do the recovery that a script is for.

    Args:
        snakemake: The `snakemake` object of the script.
    """
    output = snakemake.output
    trained = recover(RecoveryJob.from_snakemake(snakemake), Path(output.weights).parent, Path(output.training))
    logger.info("loss %.3f at first, %.3f at last", trained.losses[0], trained.losses[-1])


def recover(job: RecoveryJob, folder: str | Path, training: str | Path) -> TrainingRecord:
    """Fine-tune a pruned model, write its adapter or all of its weights, then write a record of the training.

    Args:
        job: Inputs and settings of the job.
        folder: Folder of the adapter or weights to write.
        training: File of the record to write: losses, seconds, peak memory and recipe.

    Raises:
        UserError: If the text is too short, the plan does not fit the model, or the training fails.
    """
    torch.set_num_threads(job.threads)
    manifest, plan = read_json(job.manifest), read_json(job.plan)
    sequences = load_training_sequences(manifest, job.text, job.text_settings)
    model = load_pruned(manifest, plan, job)
    check_fits_context(model, sequences.tokens.shape[1], "recovery.seq_len")
    losses_of = _distillation_losses(manifest, job)
    with _trainable(model, job) as trainable:
        trained = fine_tune(
            trainable,
            torch.from_numpy(sequences.tokens),
            TrainingSchedule(**job.select(SCHEDULE_SETTINGS)),
            token_budget=job.resources.token_budget,
            checkpointing=job.resources.checkpointing,
            losses_of=losses_of,
        )
    if job.trains_all:
        dtype = torch.bfloat16 if stored_dtype(manifest) == "bfloat16" else torch.float32
        save_weights(model, folder, Plan.from_dict(plan), dtype)
    else:
        save_adapter(trainable, folder, Plan.from_dict(plan))
    write_result(
        training, _record(job, manifest, plan, trained, recovered_fingerprint(folder), peak_memory(model.device))
    )
    return trained


@contextmanager
def _trainable(model: PreTrainedModel, job: RecoveryJob) -> Iterator[PreTrainedModel]:
    """Yield the model to train: the pruned model with adapters, or the pruned model with all weights in float32."""
    if not job.trains_all:
        yield attach(model, LoraSettings(**job.select(LORA_SETTINGS)))
        return
    dtype = model.dtype
    prepare_full(model)
    with products_in(model, dtype):
        yield model


def _distillation_losses(manifest: Mapping[str, Any], job: RecoveryJob) -> SequenceLosses | None:
    """Load the unpruned model and return the losses of distillation; None without distillation."""
    settings = job.settings.get("distillation")
    if settings is None:
        return None
    resources = job.resources
    teacher = load_from_manifest(manifest, dtype=job.settings["dtype"], device=resources.device, gpus=resources.gpus)
    return DistillationLosses(teacher, **settings)


def load_pruned(manifest: Mapping[str, Any], plan: Mapping[str, Any], job: RecoveryJob) -> PreTrainedModel:
    """Load a model for training and prune it by its plan.

    Args:
        manifest: Content of the model's manifest.
        plan: Content of `plan.json`.
        job: Inputs and settings of the job.

    Raises:
        UserError: If the model's dtype is float16, in which small gradients vanish, or the plan does not fit the model.
    """
    resources = job.resources
    model = load_from_manifest(manifest, dtype=job.settings["dtype"], device=resources.device, gpus=resources.gpus)
    check_trainable(manifest["model"], str(model.dtype).removeprefix("torch."))
    kept = Plan.from_dict(plan)
    prune(model, *kept.kept_units)
    return model


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: summed over GPUs, or its resident memory on the CPU."""
    if device.type == "cuda":
        return sum(torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts in bytes, Linux in KiB


def _record(
    job: RecoveryJob,
    manifest: Mapping[str, Any],
    plan: Mapping[str, Any],
    trained: TrainingRecord,
    fingerprint: Mapping[str, str],
    peak: int,
) -> dict[str, Any]:
    return {
        "model": manifest["model"],
        "experiment": plan["experiment"],
        "pruning_ratio": plan["pruning_ratio"],
        **fingerprint,
        "losses": trained.losses,
        "n_tokens": trained.n_tokens,
        "n_trainable": trained.n_trainable,
        "rows": trained.micro_batch_size,
        "seconds": trained.seconds,
        "n_steps": len(trained.losses),
        "peak_memory_bytes": peak,
        "recipe": recipe_of(job, manifest, plan),
    }


def recipe_of(job: RecoveryJob, manifest: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of a recovery."""
    return make_recipe(**recovery_settings(manifest, plan, recovery=job.settings, text=sha256_of(job.text)))
