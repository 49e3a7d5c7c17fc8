"""The section `recovery`: fine-tuning of pruned models, which are then evaluated again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from espalier.config.base import BEST, Name, PositiveInt, Section, duplicates
from espalier.config.data import TextSource
from espalier.models.architecture import PROJECTION_NAMES

ALL = "all"
"""Stands for all experiments of the headline ratio."""
FULL = "full"
"""Stands for the training of all weights, without adapters."""
ADAPTER_KEYS = ("rank", "alpha", "dropout", "target_modules")
"""Keys that describe adapters, and nothing else."""
if TYPE_CHECKING:
    ProjectionName = str
else:
    ProjectionName = Literal[PROJECTION_NAMES]  # mypy does not accept a Literal of a variable


class Distillation(Section):
    """Training on the next-token distributions of the unpruned model, which is held in memory beside the pruned one."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits of both models are divided by it before the softmax."""
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Weight of the divergence from the unpruned model in the loss; the rest is the next-token loss."""


class Recovery(Section):
    """Fine-tuning of pruned models. Rank, learning rate, batch size and modules default to LLM-Pruner's."""

    method: Literal["lora", "full"] = "lora"
    """What is trained: adapters beside the frozen weights, or all weights (about five times the memory)."""
    distillation: Distillation | None = None
    """Train on the distributions of the unpruned model (`{}` takes the defaults); none means on the text alone."""
    experiments: Annotated[tuple[Name, ...], Field(min_length=1)] = (BEST,)
    """Names of experiments, of every model that has them; `best` and `all` mean those of the headline ratio."""
    text: TextSource | None = None
    """Text to fine-tune on; none means documents of the calibration text that no calibration set begins with."""
    seq_len: Annotated[int, Field(ge=2)] = 512
    """Tokens of a sequence; documents are joined and cut, so that none is padded."""
    n_sequences: PositiveInt = 10_000
    """Sequences of an epoch."""
    epochs: PositiveInt = 1
    """How often each sequence is seen."""
    batch_size: PositiveInt = 64
    """Sequences of a step of the optimiser."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Highest rate, after warm-up; falls to 0 along a cosine. `method: full` needs its own, such as 1e-5."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps during which the rate rises from 0."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this L2 norm."""
    rank: PositiveInt = 8
    """Rank of the adapters."""
    alpha: PositiveInt = 16
    """Adapters are multiplied by `alpha / rank`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of an adapter's inputs that is dropped in training."""
    target_modules: Annotated[tuple[ProjectionName, ...], Field(min_length=1)] = PROJECTION_NAMES
    """Projections that get an adapter, in every layer where they are left."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the documents drawn, their order, the adapters' first weights and dropout."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the frozen weights while training, with `method: full` of the products; auto takes the model's own."""
    token_budget: Annotated[int, Field(ge=1)] = 4096
    """Tokens in one forward and backward pass; affects speed and memory only; changing it reruns nothing."""
    checkpointing: bool = True
    """Whether layers compute their activations again in the backward pass; reruns nothing."""

    @field_validator("experiments", "target_modules")
    @classmethod
    def _unique(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := duplicates(values):
            raise ValueError(f"{repeated[0]!r} is listed twice; list each once")
        return values

    @model_validator(mode="after")
    def _fits_method(self) -> Recovery:
        if self.method != FULL:
            return self
        if given := [key for key in ADAPTER_KEYS if key in self.model_fields_set]:
            raise ValueError(f"{given[0]} describes adapters, and `method: full` trains none; remove it, or give lora")
        if "learning_rate" not in self.model_fields_set:
            raise ValueError(
                "`method: full` needs a learning_rate: the default is for adapters; give one, such as 1e-5"
            )
        return self
