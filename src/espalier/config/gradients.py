"""The section `gradients`: memory use of passes over calibration text. Their results do not depend on it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from espalier.config.base import PositiveInt, Section


class Gradients(Section):
    """Memory use of gradient passes. Affects speed and memory only; changing it does not trigger a rerun."""

    token_budget: Annotated[int, Field(ge=1)] = 1024
    """Tokens in one forward and backward pass."""
    layers_per_pass: PositiveInt | None = None
    """Layers whose gradients are accumulated at once; none means as many as fit the free memory."""
    checkpointing: bool = False
    """Whether layers compute their activations again in the backward pass: less memory, more time."""
