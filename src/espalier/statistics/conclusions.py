"""Conclusions from the results, as messages. A report only renders them in its language."""

from __future__ import annotations

from collections.abc import Sequence

from espalier.messages.catalogue import Message
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL, Bootstrap
from espalier.statistics.comparison import BaseInstructComparison
from espalier.statistics.confidence_set import ConfidenceSet
from espalier.statistics.correlation import GroupedCorrelation
from espalier.statistics.optimism import Shrinkage, SplitHalf
from espalier.statistics.seeds import AxisEffect, SeedErrors
from espalier.statistics.validation import TIE
from espalier.statistics.variance import Decomposition

# Smaller shares of the variation get no sentence.
MIN_REPORTED_SHARE = 0.1
# Smaller shares are printed as 0%.
MIN_PRINTED_SHARE = 0.005


def intervals_message(draws: Bootstrap, *, level: float = CONFIDENCE_LEVEL) -> Message:
    """Name the source of the intervals."""
    if draws.source == "counts":
        return Message("from_counts", {"level": level})
    return Message("from_documents", {"level": level, "n_draws": len(draws.draws)})


def confidence_set_messages(in_set: ConfidenceSet, methods: Sequence[str], best: str) -> list[Message]:
    """State which experiments and methods are statistically indistinguishable from the best.

    Args:
        in_set: The confidence set.
        methods: Method of each experiment, in the order of the set's arrays.
        best: Name of the best experiment.

    Raises:
        ValueError: If the number of methods is not the number of experiments.
    """
    total, n_members = len(in_set.members), in_set.n_members
    if len(methods) != total:
        raise ValueError(f"{len(methods)} methods for {total} experiments")
    if total == 1:
        return [Message("set_one_experiment")]
    if n_members == 1:
        messages = [Message("set_alone", {"best": best, "others": total - 1, "level": in_set.level})]
    elif n_members == total:
        messages = [Message("set_all", {"best": best, "total": total, "level": in_set.level})]
    else:
        messages = [Message("set_some", {"best": best, "members": n_members, "total": total, "level": in_set.level})]
    n_simultaneous = int(in_set.simultaneous_members.sum())
    if n_simultaneous != n_members:
        messages.append(Message("set_simultaneous", {"members": n_simultaneous, "total": total, "level": in_set.level}))
    return messages + _method_messages(in_set, methods)


def optimism_messages(
    experiments: Sequence[str], best: str, by_shrinkage: Shrinkage, by_halves: SplitHalf | None
) -> list[Message]:
    """State how much the selection of the best experiment inflates its accuracy.

    Args:
        experiments: Names of the candidates, in the order of `by_halves.chosen_share`.
        best: Name of the best experiment.
        by_shrinkage: The shrinkage estimate.
        by_halves: The split-half estimate; None if there is none.
    """
    messages = []
    if by_shrinkage.optimism is not None and by_shrinkage.corrected is not None:
        values = {"optimism": by_shrinkage.optimism, "corrected": by_shrinkage.corrected}
        messages.append(Message("optimism_shrinkage", {"n": len(experiments), "best": best, **values}))
    elif by_shrinkage.reason is not None:
        messages.append(Message("optimism_undefined", {"reason": by_shrinkage.reason}))
    if by_halves is not None and len(experiments) > 1:
        share = float(by_halves.chosen_share[list(experiments).index(best)])
        values = {"optimism": by_halves.optimism, "share": share}
        messages.append(Message("optimism_split_half", {"best": best, "n_splits": by_halves.n_splits, **values}))
    return messages


def correlation_messages(name: str, grouped: GroupedCorrelation) -> list[Message]:
    """Describe the relation between a metric and accuracy within methods, and warn if the pooled r is misleading."""
    if grouped.mean_within is None or grouped.strength is None:
        reason = grouped.reason
        return [] if reason is None else [Message("correlation_undefined", {"name": name, "reason": reason})]
    values: dict[str, str | float] = {"name": name, "r": grouped.mean_within, "n_methods": grouped.n_groups}
    messages = [Message(f"correlation_{grouped.strength}", values)]
    if grouped.sign_differs and grouped.pooled.r is not None:
        messages.append(Message("correlation_sign_differs", {"name": name, "pooled": grouped.pooled.r}))
    if grouped.mixed_signs:
        defined = [correlation.r for correlation in grouped.within.values() if correlation.r is not None]
        messages.append(Message("correlation_mixed", {"name": name, "lowest": min(defined), "highest": max(defined)}))
    return messages


def axes_messages(decomposition: Decomposition, seeds: SeedErrors | None) -> list[Message]:
    """Name the axis that explains most of the variation, and compare the effects with the variation between seeds."""
    shares = {name: part.share for name, part in decomposition.axes.items() if part.share is not None}
    messages = []
    if not shares:
        parts = (decomposition.total, *decomposition.axes.values())
        reason = next((part.reason for part in parts if part.reason), None)
        messages += [] if reason is None else [Message("axis_none", {"reason": reason})]
    elif max(shares.values()) < MIN_PRINTED_SHARE:
        messages.append(Message("axis_none", {"reason": Message("axes_in_noise")}))
    else:
        largest = max(shares, key=lambda name: shares[name])
        messages.append(Message("axis_largest", {"axis": largest, "share": shares[largest]}))
    shares_of_rest = {"axis_interaction": decomposition.interaction.share, "axis_noise": decomposition.noise_share}
    for code, share in shares_of_rest.items():
        if share is not None and share >= MIN_REPORTED_SHARE:
            messages.append(Message(code, {"share": share}))
    return messages + ([] if seeds is None else _seed_messages(seeds))


def base_vs_instruct_messages(comparison: BaseInstructComparison) -> list[Message]:
    """State whether Instruct differs from Base on their common settings."""
    if comparison.difference is None:
        return [] if comparison.reason is None else [Message("kinds_undefined", {"reason": comparison.reason})]
    if comparison.interval is None:
        return []
    lower, upper = comparison.interval
    code = "kinds_not_told" if lower <= TIE and upper >= -TIE else "kinds_differ"
    return [Message(code, {"n": comparison.n, "difference": comparison.difference, "lower": lower, "upper": upper})]


def _method_messages(confidence_set: ConfidenceSet, methods: Sequence[str]) -> list[Message]:
    counts = {method: [0, 0] for method in methods}
    for method, member in zip(methods, confidence_set.members, strict=True):
        counts[method][0] += int(member)
        counts[method][1] += 1
    if len(counts) == 1:
        return [Message("one_method")]
    if all(members for members, _ in counts.values()):
        return [Message("every_method_in_set")]
    # The method of the best experiment is always in the set. If it is the only one, listing it adds nothing.
    with_members = [
        Message("method_in_set", {"method": method, "members": members, "total": total})
        for method, (members, total) in counts.items()
        if members
    ]
    without_members = [
        Message("method_not_in_set", {"method": method, "total": total})
        for method, (members, total) in counts.items()
        if not members
    ]
    return [*(with_members if len(with_members) > 1 else []), *without_members]


def _seed_messages(errors: SeedErrors) -> list[Message]:
    if errors.reason is not None:
        return [Message("one_seed_only")] if len(errors.seeds) == 1 else []
    return [
        _effect_message(name, effect, len(errors.seeds)) for name, effect in errors.axes.items() if effect.f is not None
    ]


def _effect_message(name: str, effect: AxisEffect, n_seeds: int) -> Message:
    f, p = effect.f or 0.0, 1.0 if effect.p is None else effect.p
    code = "axis_beyond_seeds" if p <= 1 - CONFIDENCE_LEVEL else "axis_within_seeds"
    return Message(code, {"axis": name, "f": f, "p": p, "n_seeds": n_seeds})
