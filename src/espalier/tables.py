"""Strict schemas of the tables. A table is validated where it is written: `Samples.validate(frame)`."""

from __future__ import annotations

import pandera.pandas as pa
from pandera.typing import Series


class _Table(pa.DataFrameModel):
    class Config:
        strict = True
        coerce = False
        ordered = True


class Samples(_Table):
    """Per-document results of the tasks: one row per choice."""

    task: Series[pa.String] = pa.Field(description="Task of lm-evaluation-harness.")
    doc_id: Series[int] = pa.Field(ge=0, description="Number of the document in its split.")
    choice: Series[int] = pa.Field(ge=0, description="Number of the choice.")
    gold: Series[bool] = pa.Field(description="Whether this choice is right.")
    loglikelihood: Series[float] = pa.Field(le=0, description="Sum of token log-probabilities of the choice (nats).")
    is_greedy: Series[bool] = pa.Field(description="Whether each token of the choice was the most probable one.")
    n_chars: Series[int] = pa.Field(ge=0, description="Length of the choice without delimiter (characters).")
    n_bytes: Series[int] = pa.Field(ge=0, description="Length of the choice without delimiter (UTF-8 bytes).")

    class Config(_Table.Config):
        unique = ["task", "doc_id", "choice"]  # noqa: RUF012 (pandera's own form)
