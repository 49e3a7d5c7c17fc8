"""The section `export`: which pruned models are written as checkpoints, and in which formats."""

from __future__ import annotations

from typing import Literal

from espalier.config.base import Name, Section


class Export(Section):
    """Experiments that the target `export` writes, besides the best one of each model (see `docs/export.md`)."""

    experiments: tuple[Name, ...] = ()
    """Names of experiments, written for every model that has them."""
    formats: tuple[Literal["transformers", "vllm", "gguf"], ...] = ("transformers",)
    """Formats to write."""
    stock: bool = False
    """Whether only stock checkpoints are written. A plan without a stock shape is then refused."""
    dtype: Literal["stored", "float32", "bfloat16", "float16"] = "stored"
    """Type of the weights; `stored` keeps that of the base model."""
    gguf_type: Literal["F32", "F16", "Q8_0"] = "F16"
    """Type of the weights in GGUF files."""
