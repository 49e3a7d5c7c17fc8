"""Settings of an evaluator. The module imports neither torch nor lm-eval, so a job may end before it needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EvaluatorSettings:
    """Settings of an evaluator that are the same for all evaluations of a model.

    Attributes:
        data_folder: Folder with `{task}/{split}.parquet`, or with JSON files of the same names.
        protocol: Evaluation protocol, as `Protocol.to_dict` returns it.
        dtype: Dtype of the weights.
        device: `auto`, `cpu` or `cuda`.
        gpus: Number of GPUs that hold the model.
        token_budget: Most tokens per forward pass.
        threads: CPU threads.
        compile_layers: Whether layers run through `torch.compile` (`espalier.scoring.compiled`).
    """

    data_folder: Path
    protocol: Mapping[str, Any]
    dtype: str
    device: str
    gpus: int
    token_budget: int
    threads: int
    compile_layers: bool = False
