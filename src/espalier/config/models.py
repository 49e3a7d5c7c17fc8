"""The section `models`: the models of a study and their sources."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from espalier.config.base import REPOSITORY_PATTERN, REVISION_PATTERN, Name, PositiveInt, Section, check_length
from espalier.config.grid import GridOverrides

RESERVED_NAMES = {
    "cross_model": "the folder of the cross-model reports",
    **dict.fromkeys(("index.html", "experiments.html"), "a file beside the reports of the models"),
    **{
        f"{table}.parquet": "a table beside those of the models"
        for table in ("experiments", "evaluations", "layers", "recovery")
    },
}
"""Names that no model may have, and the file or folder that already has that name in the results."""


class SandboxModel(Section):
    """A tiny model that the workflow trains on the texts of the sandbox."""

    architecture: Literal["llama", "qwen2", "mistral"]
    """Architecture, with the kind of tokenizer its real models have."""
    continue_from: Name | None = None
    """Name of the sandbox model whose weights this one starts from; it is then trained on questions and answers."""
    hidden_size: PositiveInt = 64
    """Width of the residual stream."""
    intermediate_size: PositiveInt = 96
    """MLP channels in a layer."""
    num_hidden_layers: PositiveInt = 6
    """Number of decoder layers."""
    num_attention_heads: PositiveInt = 8
    """Query heads in a layer."""
    num_key_value_heads: PositiveInt = 4
    """Key/value heads in a layer."""
    tie_word_embeddings: bool = False
    """Whether input and output embeddings are one matrix."""
    max_position_embeddings: PositiveInt = 256
    """Longest context, in tokens."""
    steps: PositiveInt = 900
    """Optimizer steps."""
    peak_learning_rate: Annotated[float, Field(gt=0, lt=1)] = 8e-3
    """Highest learning rate of the one-cycle schedule."""
    initializer_range: Annotated[float, Field(gt=0, lt=1)] = 0.08
    """Standard deviation of the initial weights; far above the usual 0.02, at which so small a model hardly learns."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights and of the order of the rows."""

    @model_validator(mode="after")
    def _heads_divide(self) -> SandboxModel:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        return self


class ModelEntry(Section):
    """One model: a local folder, a repository on the hub, a sandbox model, or imported results."""

    name: Name
    """Name in paths, tables and reports."""
    family: Name
    """Family in reports, such as Llama, Qwen or Mistral."""
    kind: Literal["base", "instruct"]
    """Whether the model was tuned to follow instructions."""
    path: Annotated[str, Field(min_length=1)] | None = None
    """Folder written by `save_pretrained` (safetensors and tokenizer)."""
    hub: Annotated[str, Field(pattern=REPOSITORY_PATTERN)] | None = None
    """Repository on the hub, `owner/name`; fetched by `snakemake stage`."""
    revision: Annotated[str, Field(pattern=REVISION_PATTERN)] = "main"
    """Branch, tag or commit of the repository; `stage` resolves it to a commit in `cache/lock.yaml`."""
    sandbox: SandboxModel | None = None
    """Settings of a model that the workflow trains itself."""
    legacy: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Folders of results made elsewhere, to be imported instead of computed."""
    trust_remote_code: bool = False
    """Whether code that comes with this model may run. Off unless you have read that code."""
    gpus: PositiveInt = 1
    """GPUs that a job of this model gets, to spread its layers over; on one machine give `--resources gpu=N` too."""
    grid: GridOverrides = GridOverrides()
    """What differs from the study's grid for this model."""

    @field_validator("path")
    @classmethod
    def _not_too_long(cls, path: str | None) -> str | None:
        return path and check_length(path)

    @field_validator("legacy")
    @classmethod
    def _none_too_long(cls, folders: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return folders and tuple(map(check_length, folders))

    @model_validator(mode="after")
    def _one_source(self) -> ModelEntry:
        given = [key for key in ("path", "hub", "sandbox", "legacy") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"got {' and '.join(given) or 'no source'}; give exactly one of path, hub, sandbox, legacy"
            )
        if "revision" in self.model_fields_set and self.hub is None:
            raise ValueError(f"revision {self.revision!r} given without hub; only a hub repository has revisions")
        if self.legacy is not None and self.grid != GridOverrides():
            raise ValueError("grid given with legacy; imported results have the settings of their folders")
        if self.name in RESERVED_NAMES:
            raise ValueError(f"name {self.name!r} is {RESERVED_NAMES[self.name]}; choose another name")
        return self
