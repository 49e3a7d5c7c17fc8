"""The only place that builds experiment names; everything else looks them up."""

from __future__ import annotations

from decimal import Decimal

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
"""Pattern of names that become part of a path: no slash, no space, no leading dot."""
BASELINE = "baseline"
"""Name of the unpruned model among the experiments."""
CONTROL = "random"
"""Criterion of the experiments that are the control of the others: it knows nothing of the model."""


def experiment_name(method: str, ratio: float, *, seq_len: int | None, n_samples: int | None, seed: int | None) -> str:
    """Return the name of an experiment, such as `blockwise-seq64-n128-p50` or `random-p12_5-s1`.

    Arguments that are None are left out of the name.
    """
    parts = [method]
    if seq_len is not None:
        parts.append(f"seq{seq_len}")
    if n_samples is not None:
        parts.append(f"n{n_samples}")
    parts.append(f"p{ratio_key(ratio)}")
    if seed is not None:
        parts.append(f"s{seed}")
    return "-".join(parts)


def ratio_key(ratio: float) -> str:
    """Return a pruning ratio in percent for paths and keys: `20` for 0.2, `12_5` for 0.125; never with an exponent."""
    percent = format(Decimal(f"{100 * ratio:.10g}"), "f")
    return percent.replace(".", "_")
