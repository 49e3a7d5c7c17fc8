"""Rotary position embeddings: scaling types that GGUF can express, and the frequencies of each type."""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from espalier.errors import UserError

SCALINGS = ("default", "linear", "llama3")


def check_rope(config: Any) -> str:
    """Return the type of rope scaling, one of `SCALINGS`.

    Raises:
        UserError: If GGUF cannot express the position embeddings of the config.
    """
    kind = str(config.rope_parameters.get("rope_type", "default"))
    if kind not in SCALINGS:
        raise UserError(
            f"config.json: rope scaling {kind!r} is not written to GGUF; allowed: {', '.join(SCALINGS)}; "
            "export to transformers instead"
        )
    if config.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError("config.json: partial_rotary_factor is not 1, which GGUF's deci architecture cannot express; "
                        "export to transformers instead")  # fmt: skip
    return kind


def inverse_frequencies(config: Any, head_dim: int, kind: str) -> torch.Tensor:
    """Return the rotary frequencies, (head_dim / 2,), float32: the angle per position of each pair of elements."""
    if kind == "default":
        theta = float(config.rope_parameters["rope_theta"])
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        return torch.as_tensor(1.0 / theta**exponents, dtype=torch.float32)
    frequencies, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    return frequencies.to(torch.float32)


def frequency_factors(config: Any, head_dim: int) -> torch.Tensor:
    """Return the divisors, (head_dim / 2,), that turn unscaled frequencies into those of llama3 scaling."""
    return inverse_frequencies(config, head_dim, "default") / inverse_frequencies(config, head_dim, "llama3")
