"""Conclusions from the results, as messages. A report only renders them in its language."""

from __future__ import annotations

from collections.abc import Sequence

from espalier.statistics.bootstrap import LEVEL, Bootstrap
from espalier.statistics.checks import TIE
from espalier.statistics.comparison import KindsCompared
from espalier.statistics.confidence_set import ConfidenceSet
from espalier.statistics.correlation import GroupedCorrelation
from espalier.statistics.messages import Message
from espalier.statistics.optimism import Shrinkage, SplitHalf
from espalier.statistics.seeds import AxisEffect, SeedErrors
from espalier.statistics.variance import Decomposition

# Smaller shares of the variation get no sentence.
WORTH_SAYING = 0.1
# Smaller shares are printed as 0%.
NOTHING = 0.005


def about_intervals(of: Bootstrap, *, level: float = LEVEL) -> Message:
    """Name the source of the intervals."""
    if of.source == "counts":
        return Message("from_counts", {"level": level})
    return Message("from_documents", {"level": level, "n_draws": len(of.draws)})


def about_set(of: ConfidenceSet, methods: Sequence[str], best: str) -> list[Message]:
    """State which experiments and methods are statistically indistinguishable from the best.

    Args:
        of: The confidence set.
        methods: Method of each experiment, in the order of the set's arrays.
        best: Name of the best experiment.

    Raises:
        ValueError: If the number of methods is not the number of experiments.
    """
    total, members = len(of.members), of.n_members
    if len(methods) != total:
        raise ValueError(f"{len(methods)} methods for {total} experiments")
    if total == 1:
        return [Message("set_one_experiment")]
    if members == 1:
        said = [Message("set_alone", {"best": best, "others": total - 1, "level": of.level})]
    elif members == total:
        said = [Message("set_all", {"best": best, "total": total, "level": of.level})]
    else:
        said = [Message("set_some", {"best": best, "members": members, "total": total, "level": of.level})]
    together = int(of.simultaneous_members.sum())
    if together != members:
        said.append(Message("set_simultaneous", {"members": together, "total": total, "level": of.level}))
    return said + _about_methods(of, methods)


def about_optimism(
    experiments: Sequence[str], best: str, by_shrinkage: Shrinkage, by_halves: SplitHalf | None
) -> list[Message]:
    """State how much the selection of the best experiment inflates its accuracy.

    Args:
        experiments: Names of the candidates, in the order of `by_halves.chosen_share`.
        best: Name of the best experiment.
        by_shrinkage: The shrinkage estimate.
        by_halves: The split-half estimate; None if there is none.
    """
    said = []
    if by_shrinkage.optimism is not None and by_shrinkage.corrected is not None:
        values = {"optimism": by_shrinkage.optimism, "corrected": by_shrinkage.corrected}
        said.append(Message("optimism_shrinkage", {"n": len(experiments), "best": best, **values}))
    elif by_shrinkage.reason is not None:
        said.append(Message("optimism_undefined", {"reason": by_shrinkage.reason}))
    if by_halves is not None and len(experiments) > 1:
        share = float(by_halves.chosen_share[list(experiments).index(best)])
        values = {"optimism": by_halves.optimism, "share": share}
        said.append(Message("optimism_split_half", {"best": best, "n_splits": by_halves.n_splits, **values}))
    return said


def about_correlation(name: str, of: GroupedCorrelation) -> list[Message]:
    """Describe the relation between a metric and accuracy within methods, and warn if the pooled r is misleading."""
    if of.mean_within is None or of.strength is None:
        return [] if of.reason is None else [Message("correlation_undefined", {"name": name, "reason": of.reason})]
    said = [Message(f"correlation_{of.strength}", {"name": name, "r": of.mean_within, "n_methods": of.n_groups})]
    if of.sign_differs and of.pooled.r is not None:
        said.append(Message("correlation_sign_differs", {"name": name, "pooled": of.pooled.r}))
    if of.mixed_signs:
        defined = [one.r for one in of.within.values() if one.r is not None]
        said.append(Message("correlation_mixed", {"name": name, "lowest": min(defined), "highest": max(defined)}))
    return said


def about_axes(of: Decomposition, seeds: SeedErrors | None) -> list[Message]:
    """Name the axis that explains most of the variation, and compare the effects with the variation between seeds."""
    shares = {name: part.share for name, part in of.axes.items() if part.share is not None}
    said = []
    if not shares:
        reason = of.total.reason or next((part.reason for part in of.axes.values() if part.reason), None)
        said += [] if reason is None else [Message("axis_none", {"reason": reason})]
    elif max(shares.values()) < NOTHING:
        said.append(Message("axis_none", {"reason": Message("axes_in_noise")}))
    else:
        largest = max(shares, key=lambda name: shares[name])
        said.append(Message("axis_largest", {"axis": largest, "share": shares[largest]}))
    if of.interaction.share is not None and of.interaction.share >= WORTH_SAYING:
        said.append(Message("axis_interaction", {"share": of.interaction.share}))
    if of.noise_share is not None and of.noise_share >= WORTH_SAYING:
        said.append(Message("axis_noise", {"share": of.noise_share}))
    return said + ([] if seeds is None else _about_seeds(seeds))


def about_kinds(of: KindsCompared) -> list[Message]:
    """State whether Instruct differs from Base on their common settings."""
    if of.difference is None:
        return [] if of.reason is None else [Message("kinds_undefined", {"reason": of.reason})]
    if of.interval is None:
        return []
    lower, upper = of.interval
    code = "kinds_not_told" if lower <= TIE and upper >= -TIE else "kinds_differ"
    return [Message(code, {"n": of.n, "difference": of.difference, "lower": lower, "upper": upper})]


def _about_methods(of: ConfidenceSet, methods: Sequence[str]) -> list[Message]:
    counts = {method: [0, 0] for method in methods}
    for method, member in zip(methods, of.members, strict=True):
        counts[method][0] += int(member)
        counts[method][1] += 1
    if len(counts) == 1:
        return [Message("one_method")]
    if all(members for members, _ in counts.values()):
        return [Message("every_method_in_set")]
    # The method of the best experiment is always in the set. If it is the only one, listing it adds nothing.
    in_set = [
        Message("method_in_set", {"method": method, "members": members, "total": total})
        for method, (members, total) in counts.items()
        if members
    ]
    not_in_set = [
        Message("method_not_in_set", {"method": method, "total": total})
        for method, (members, total) in counts.items()
        if not members
    ]
    return [*(in_set if len(in_set) > 1 else []), *not_in_set]


def _about_seeds(of: SeedErrors) -> list[Message]:
    if of.reason is not None:
        return [Message("one_seed_only")] if len(of.seeds) == 1 else []
    return [_about_effect(name, effect, len(of.seeds)) for name, effect in of.axes.items() if effect.f is not None]


def _about_effect(name: str, effect: AxisEffect, n_seeds: int) -> Message:
    f, p = effect.f or 0.0, 1.0 if effect.p is None else effect.p
    code = "axis_beyond_seeds" if p <= 1 - LEVEL else "axis_within_seeds"
    return Message(code, {"axis": name, "f": f, "p": p, "n_seeds": n_seeds})
