"""The only place that builds experiment names; everything else looks them up."""

from __future__ import annotations

from decimal import Decimal

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
"""Names that become part of a path: no slash, no space, no leading dot."""
BASELINE = "baseline"
"""The unpruned model among the experiments."""


def experiment_name(method: str, ratio: float, *, seq_len: int | None, n_samples: int | None, seed: int | None) -> str:
    """Name an experiment: `blockwise-seq64-n128-p50`, `random-p12_5-s1`."""
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
    """Write a pruning ratio in percent, as in paths and keys: 0.2 is `20`, 0.125 is `12_5`; never with an exponent."""
    percent = format(Decimal(f"{100 * ratio:.10g}"), "f")
    return percent.replace(".", "_")
