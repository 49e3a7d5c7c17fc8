"""The section `gradients`: memory use of passes over calibration text. Their results do not depend on it."""

from __future__ import annotations

from espalier.config.base import PositiveInt, Section


class Gradients(Section):
    """Passes over calibration text. Affects speed and memory only; changing it does not trigger a rerun."""

    token_budget: PositiveInt | None = None
    """Tokens in one forward and backward pass; none means as many as are fast and fit the free memory."""
    layers_per_pass: PositiveInt | None = None
    """Layers whose gradients are accumulated at once; none means as many as fit the free memory."""
    checkpointing: bool = False
    """Whether layers compute their activations again in the backward pass: less memory, more time."""
    passes_per_job: PositiveInt = 16
    """Most passes of one model (gradients, importances, priors) in one job; the weights are then read once."""
