"""The section `inference`: settings of the target `inference`. No other target uses them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from espalier.config.base import BEST, Name, PositiveInt, Section, duplicates


class Inference(Section):
    """Timing of pruned models against their unpruned models. Only the target `inference` uses this section."""

    experiments: Annotated[tuple[Name, ...], Field(min_length=1)] = (BEST,)
    """Names of experiments; `best` is the best one of each model at the headline ratio."""
    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 8)
    """Sequences that are run at once."""
    prompt_tokens: PositiveInt = 512
    """Tokens of each prompt."""
    new_tokens: Annotated[int, Field(ge=2)] = 64
    """Tokens generated for each prompt; the first one comes from the prompt's own pass."""
    repeats: Annotated[int, Field(ge=6)] = 9
    """Times that each model is run, in turn; fewer than 6 have no 95% interval."""
    threads: PositiveInt = 1
    """CPU threads."""

    @field_validator("experiments", "batch_sizes")
    @classmethod
    def _unique(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if repeated := duplicates(values):
            raise ValueError(f"{repeated[0]!r} is listed twice; list each value once")
        return values
