"""Comparison of two models on their common settings, and of pruned models with the unpruned model.

difference    = mean over common settings of (accuracy_instruct - accuracy_base)
accuracy kept = accuracy / accuracy of the unpruned model
ppl ratio     = perplexity / perplexity of the unpruned model

A setting is (method, taylor_seq_len, taylor_num_samples, seed, pruning_ratio). Intervals are percentiles of the same
expression over the joint bootstrap draws. They cover other documents, but not other settings or seeds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL, Bootstrap, percentile_interval
from espalier.statistics.validation import FloatArray, accuracy_and_draws, finite_array, same_lengths


class PairedDraws(NamedTuple):
    """Draws of the accuracies of a base model and of its instruct model, (n_draws, n_experiments) each."""

    base: FloatArray
    instruct: FloatArray


class Ratio(NamedTuple):
    """A ratio; None if it is undefined, with the reason."""

    value: float | None
    reason: Message | None


@dataclass(frozen=True)
class BaseInstructComparison:
    """Comparison of an instruct model with its base model on their common settings.

    Attributes:
        settings: The common settings.
        n: Number of common settings.
        base: Mean accuracy of Base over the common settings.
        instruct: Mean accuracy of Instruct over the common settings.
        difference: `instruct` - `base`.
        relative_change: `instruct` / `base` - 1; None if `base` is 0.
        std: Population standard deviation of the differences of single settings.
        n_instruct_higher: Number of settings in which Instruct has the higher accuracy.
        interval: Interval of `difference`; None without draws.
        reason: Why a value other than `interval` is None; None if all are defined.
    """

    settings: tuple[Hashable, ...]
    n: int
    base: float | None
    instruct: float | None
    difference: float | None
    relative_change: float | None
    std: float | None
    n_instruct_higher: int
    interval: tuple[float, float] | None
    reason: Message | None


@dataclass(frozen=True)
class AccuracyKept:
    """Accuracies divided by the accuracy of the unpruned model.

    Attributes:
        kept: Accuracy kept by each experiment, (n_experiments,); None if undefined.
        intervals: Lower and upper ends, (n_experiments, 2); None if undefined or without draws.
        reason: Why a value is undefined; None if it is defined or there are no draws.
    """

    kept: FloatArray | None
    intervals: FloatArray | None
    reason: Message | None


def paired_draws(base: Bootstrap, instruct: Bootstrap) -> PairedDraws:
    """Return the draws of two models after checking that they can be compared (`check_paired`)."""
    check_paired(base, instruct)
    return PairedDraws(base.draws, instruct.draws)


def check_paired(first: Bootstrap, second: Bootstrap) -> None:
    """Check that the draws of two models can be compared.

    Draws over the same documents with the same seed are joint. Draws from counts are independent of all other draws.

    Raises:
        UserError: If the documents, seeds or numbers of draws of the two models differ.
    """
    documents = first.source == second.source == "documents"
    if (documents and first.origin != second.origin) or len(first.draws) != len(second.draws):
        raise UserError(
            "two models cannot be compared: their documents, seeds or numbers of draws differ;"
            " evaluate both with one protocol and draw with one seed"
        )


def base_vs_instruct(
    base_settings: Sequence[Hashable],
    base_accuracy: Any,
    instruct_settings: Sequence[Hashable],
    instruct_accuracy: Any,
    draws: PairedDraws | None = None,
    *,
    level: float = CONFIDENCE_LEVEL,
) -> BaseInstructComparison:
    """Compare Instruct with Base on their common settings.

    Args:
        base_settings: Setting of each experiment of the base model.
        base_accuracy: Accuracy of each experiment of the base model.
        instruct_settings: Setting of each experiment of the instruct model.
        instruct_accuracy: Accuracy of each experiment of the instruct model.
        draws: Draws of both models from `paired_draws`; None gives no interval.
        level: Confidence level of the interval.

    Raises:
        UserError: If an accuracy is missing or infinite, or a model has a setting twice.
        ValueError: If the numbers of settings and accuracies differ.
    """
    base, instruct = (
        finite_array(base_accuracy, "accuracy of Base"),
        finite_array(instruct_accuracy, "accuracy of Instruct"),
    )
    by_setting = [
        _row_by_setting(base_settings, base, "base"),
        _row_by_setting(instruct_settings, instruct, "instruct"),
    ]
    common = tuple(setting for setting in by_setting[0] if setting in by_setting[1])
    if not common:
        reason = Message("no_common_settings")
        return BaseInstructComparison((), 0, None, None, None, None, None, 0, None, reason)
    base_rows, instruct_rows = ([row_of[setting] for setting in common] for row_of in by_setting)
    differences = instruct[instruct_rows] - base[base_rows]
    interval = None
    if draws is not None:
        drawn = draws.instruct[:, instruct_rows].mean(axis=1) - draws.base[:, base_rows].mean(axis=1)
        lower, upper = percentile_interval(drawn, level)
        interval = (float(lower), float(upper))
    means = float(base[base_rows].mean()), float(instruct[instruct_rows].mean())
    return BaseInstructComparison(
        settings=common,
        n=len(common),
        base=means[0],
        instruct=means[1],
        difference=float(differences.mean()),
        relative_change=means[1] / means[0] - 1 if means[0] > 0 else None,
        std=float(differences.std()),
        n_instruct_higher=int((differences > 0).sum()),
        interval=interval,
        reason=None if means[0] > 0 else Message("zero_base"),
    )


def accuracy_kept(
    accuracy: Any,
    baseline: float | None,
    draws: Any | None = None,
    baseline_draws: Any | None = None,
    *,
    level: float = CONFIDENCE_LEVEL,
) -> AccuracyKept:
    """Divide accuracies by the accuracy of the unpruned model.

    Args:
        accuracy: Accuracies, (n_experiments,).
        baseline: Accuracy of the unpruned model; None if it has no result.
        draws: Joint bootstrap draws, (n_draws, n_experiments); None gives no intervals.
        baseline_draws: Draws of the unpruned model with the same document weights, (n_draws,); None gives no intervals.
        level: Confidence level of the intervals.

    Raises:
        UserError: If an accuracy or a draw is missing or infinite.
        ValueError: If the numbers of draws differ.
    """
    y = finite_array(accuracy, "accuracy")
    if baseline is None or not math.isfinite(baseline):
        return AccuracyKept(None, None, Message("no_baseline"))
    if baseline == 0:
        return AccuracyKept(None, None, Message("zero_baseline"))
    kept = y / baseline
    if draws is None or baseline_draws is None:
        return AccuracyKept(kept, None, None)
    below = finite_array(baseline_draws, "draws of the unpruned model")
    if (below == 0).any():
        return AccuracyKept(kept, None, Message("zero_baseline"))
    drawn = accuracy_and_draws(y, draws)[1]
    if len(drawn) != len(below):
        raise ValueError(f"{len(drawn)} draws of the experiments, {len(below)} of the unpruned model")
    return AccuracyKept(kept, percentile_interval(drawn / below[:, None], level), None)


def perplexity_ratio(perplexity: float | None, baseline: float | None) -> Ratio:
    """Divide a perplexity by the perplexity of the unpruned model."""
    if baseline is None:
        return Ratio(None, Message("no_baseline"))
    if not math.isfinite(baseline):
        return Ratio(None, Message("not_finite", {"name": Message("name.ppl_unpruned")}))
    if perplexity is None or not math.isfinite(perplexity):
        return Ratio(None, Message("not_finite", {"name": Message("name.ppl")}))
    if baseline <= 0:
        return Ratio(None, Message("zero_baseline"))
    return Ratio(perplexity / baseline, None)


def _row_by_setting(settings: Sequence[Hashable], accuracy: FloatArray, kind: str) -> dict[Hashable, int]:
    same_lengths(settings=settings, accuracy=accuracy)
    rows = {setting: row for row, setting in enumerate(settings)}
    if len(rows) < len(settings):
        twice = next(setting for row, setting in enumerate(settings) if rows[setting] != row)
        raise UserError(f"the {kind} model has setting {twice} twice; compare one pruning ratio and name the seed")
    return rows
