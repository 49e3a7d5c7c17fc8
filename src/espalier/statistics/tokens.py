"""Comparison of calibration settings that use the same number of tokens.

tokens = taylor_seq_len * taylor_num_samples

Longer sequences also mean more tokens, so a mean by `taylor_seq_len` or by `taylor_num_samples` alone mixes the
sequence length with the number of tokens. Settings in one group have the same number of tokens and differ only in the
sequence length. Means are over the blocks (methods and seeds) that ran every setting of a group. They are therefore
comparable.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from espalier.errors import UserError
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL, percentile_interval
from espalier.statistics.validation import FloatArray, accuracy_and_draws, finite_array, same_lengths


@dataclass(frozen=True)
class TokenSetting:
    """One setting: its mean accuracy over the shared blocks, and the interval of that mean (None without draws)."""

    taylor_seq_len: int
    taylor_num_samples: int
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class TokenGroup:
    """Settings with the same number of calibration tokens.

    Attributes:
        tokens: Number of calibration tokens of each setting.
        blocks: Blocks that ran all settings of the group.
        settings: The settings, by ascending sequence length.
        difference: Mean accuracy with the longest sequences minus mean accuracy with the shortest sequences.
        interval: Interval of `difference` from the joint draws; None without draws.
    """

    tokens: int
    blocks: tuple[Hashable, ...]
    settings: tuple[TokenSetting, ...]
    difference: float
    interval: tuple[float, float] | None


def compare_at_equal_tokens(
    accuracy: Any,
    taylor_seq_len: Sequence[int | None],
    taylor_num_samples: Sequence[int | None],
    blocks: Sequence[Hashable],
    draws: Any | None = None,
    *,
    level: float = CONFIDENCE_LEVEL,
) -> list[TokenGroup]:
    """Compare settings that use the same number of calibration tokens.

    Args:
        accuracy: Accuracies, (n_experiments,).
        taylor_seq_len: Sequence length of each experiment; None if its method uses no sequences.
        taylor_num_samples: Number of sequences of each experiment; None if its method uses no sequences.
        blocks: Block of each experiment: its method, or (method, seed).
        draws: Joint bootstrap draws, (n_draws, n_experiments); None gives no intervals.
        level: Confidence level of the intervals.

    Returns:
        Groups of at least two settings that share at least one block, by ascending number of tokens.

    Raises:
        UserError: If an accuracy or a draw is missing, or one block ran a setting twice.
        ValueError: If the columns have different lengths.
    """
    y = finite_array(accuracy, "accuracy")
    same_lengths(accuracy=y, seq_len=taylor_seq_len, num_samples=taylor_num_samples, blocks=blocks)
    drawn = None if draws is None else accuracy_and_draws(y, draws)[1]
    settings: dict[tuple[int, int], dict[Hashable, int]] = {}
    columns = zip(taylor_seq_len, taylor_num_samples, blocks, strict=True)
    for row, (length, count, block) in enumerate(columns):
        if length is None or count is None:
            continue
        if settings.setdefault((int(length), int(count)), {}).setdefault(block, row) != row:
            raise UserError(f"{block}, {length} tokens x {count} sequences: given twice; name the seed in the blocks")
    groups = []
    for tokens in sorted({length * count for length, count in settings}):
        group = {key: rows for key, rows in sorted(settings.items()) if key[0] * key[1] == tokens}
        shared = [block for block in dict.fromkeys(blocks) if all(block in rows for rows in group.values())]
        if len(group) > 1 and shared:
            groups.append(_token_group(tokens, group, shared, y, drawn, level))
    return groups


def _token_group(
    tokens: int,
    group: dict[tuple[int, int], dict[Hashable, int]],
    shared: list[Hashable],
    y: FloatArray,
    draws: FloatArray | None,
    level: float,
) -> TokenGroup:
    rows = {key: [by_block[block] for block in shared] for key, by_block in group.items()}
    means = {key: float(y[members].mean()) for key, members in rows.items()}
    mean_draws = {} if draws is None else {key: draws[:, members].mean(axis=1) for key, members in rows.items()}
    shortest, longest = min(rows), max(rows)

    def interval(path: FloatArray) -> tuple[float, float]:
        lower, upper = percentile_interval(path, level)
        return float(lower), float(upper)

    return TokenGroup(
        tokens=tokens,
        blocks=tuple(shared),
        settings=tuple(
            TokenSetting(*key, mean, interval(mean_draws[key]) if mean_draws else None) for key, mean in means.items()
        ),
        difference=means[longest] - means[shortest],
        interval=interval(mean_draws[longest] - mean_draws[shortest]) if mean_draws else None,
    )
