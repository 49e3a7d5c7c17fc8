"""Resources of the jobs that run a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JobResources:
    """Resources of a job. They affect speed and memory only, not its results.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        gpus: Number of GPUs that hold the model.
        token_budget: Most tokens per forward pass. 0, for a gradient pass, chooses by device and free memory.
        prior_token_budget: Most tokens per call of a layer when priors are measured.
        layers_per_pass: Layers whose gradients are summed at once. 0 takes as many as fit.
        checkpointing: Whether the backward pass recomputes activations instead of keeping them in memory.
        compile_layers: Whether layers are evaluated through `torch.compile`.
    """

    device: str
    gpus: int
    token_budget: int = 0
    prior_token_budget: int = 0
    layers_per_pass: int = 0
    checkpointing: bool = False
    compile_layers: bool = False

    @classmethod
    def from_snakemake(cls, snakemake: Any) -> JobResources:
        """Read the resources from the `snakemake` object of a script. A rule need only set the first two."""
        given = dict(snakemake.resources.items())
        return cls(
            device=given["device"],
            gpus=given["model_gpus"] if "model_gpus" in given else given["gpu"],
            token_budget=given.get("token_budget", 0),
            prior_token_budget=given.get("prior_token_budget", 0),
            layers_per_pass=given.get("layers_per_pass", 0),
            checkpointing=bool(given.get("checkpointing", False)),
            compile_layers=bool(given.get("compile_layers", False)),
        )
