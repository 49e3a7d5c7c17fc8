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


class Importance(_Table):
    """Importance of prunable groups, for each number of calibration samples of one gradient pass."""

    n_samples: Series[int] = pa.Field(ge=1, description="Calibration sequences that the gradient is the mean of.")
    layer: Series[int] = pa.Field(ge=0, description="Number of the decoder layer.")
    block: Series[pa.String] = pa.Field(isin=["attention", "mlp"], description="Block that the group belongs to.")
    group: Series[int] = pa.Field(ge=0, description="Number of the KV group or MLP channel in its block.")
    importance: Series[float] = pa.Field(ge=0, lt=float("inf"), description="Sum of |w g| over the group (nats).")

    class Config(_Table.Config):
        unique = ["n_samples", "layer", "block", "group"]  # noqa: RUF012


class Gradients(_Table):
    """Statistics of the accumulated mean gradient g of each projection (weight and bias)."""

    n_samples: Series[int] = pa.Field(ge=1, description="Calibration sequences that the gradient is the mean of.")
    layer: Series[int] = pa.Field(ge=0, description="Number of the decoder layer.")
    projection: Series[pa.String] = pa.Field(description="Projection, such as q_proj.")
    n_params: Series[int] = pa.Field(ge=1, description="Parameters of the projection.")
    grad_mean: Series[float] = pa.Field(ge=0, lt=float("inf"), description="Mean of |g|.")
    grad_std: Series[float] = pa.Field(ge=0, lt=float("inf"), description="Standard deviation of |g|.")
    grad_norm: Series[float] = pa.Field(ge=0, lt=float("inf"), description="L2 norm of g.")
    grad_max: Series[float] = pa.Field(ge=0, lt=float("inf"), description="Largest |g|.")

    class Config(_Table.Config):
        unique = ["n_samples", "layer", "projection"]  # noqa: RUF012


class PriorTable(_Table):
    """What the model loses without a block, for each number of calibration samples."""

    n_samples: Series[int] = pa.Field(ge=1, description="Calibration samples of the setting; priors use a fifth.")
    layer: Series[int] = pa.Field(ge=0, description="Number of the decoder layer.")
    scope: Series[pa.String] = pa.Field(isin=["layer", "attention", "mlp"], description="What was removed.")
    loss_increase: Series[float] = pa.Field(description="Mean token loss without it minus with it (nats).")
    cosine_distance: Series[float] = pa.Field(
        ge=-1e-6, le=2.000001, description="Mean over tokens of 1 - cosine between hidden states before and after."
    )

    class Config(_Table.Config):
        unique = ["n_samples", "layer", "scope"]  # noqa: RUF012
