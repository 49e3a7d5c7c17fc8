"""The section `sandbox`: sizes of the synthetic texts and tasks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from espalier.config.base import PositiveInt, Section


class Sandbox(Section):
    """Synthetic texts and tasks that replace real corpora and datasets."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the world and of every text drawn from it."""
    documents_per_task: PositiveInt = 300
    """Documents of each task's evaluation split."""
    training_pages: PositiveInt = 8000
    """Pages of the training corpus."""
    calibration_pages: PositiveInt = 600
    """Pages of the calibration corpus."""
    perplexity_lines: PositiveInt = 400
    """Lines of each perplexity text."""
    vocab_size: Annotated[int, Field(ge=300)] = 800
    """Upper bound on the tokens of each tokenizer."""
