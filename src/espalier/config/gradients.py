"""`gradients`: how passes over calibration text are run. What they compute does not depend on it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from espalier.config.base import PositiveInt, Section


class Gradients(Section):
    """Memory of the gradient pass. Changing these reruns nothing."""

    token_budget: Annotated[int, Field(ge=1)] = 1024
    """Tokens in one forward and backward pass."""
    layers_per_pass: PositiveInt | None = None
    """Layers whose gradients are accumulated at once; none means as many as fit the free memory."""
    checkpointing: bool = False
    """Whether layers compute their activations again in the backward pass: less memory, more time."""
