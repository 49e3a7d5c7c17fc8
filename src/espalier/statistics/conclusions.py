"""Conclusions from the results, as messages. A report only renders them in its language."""

from __future__ import annotations

from collections.abc import Sequence

from espalier.messages.catalogue import Message
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL, Bootstrap
from espalier.statistics.confidence_set import ConfidenceSet
from espalier.statistics.correlation import GroupedCorrelation, relation_is_shown
from espalier.statistics.optimism import Shrinkage, SplitHalf
from espalier.statistics.seeds import AxisEffect, SeedErrors
from espalier.statistics.validation import TIE


def intervals_message(draws: Bootstrap, *, level: float = CONFIDENCE_LEVEL) -> Message:
    """Name the source of the intervals."""
    if draws.source == "counts":
        return Message("from_counts", {"level": level})
    return Message("from_documents", {"level": level, "n_draws": len(draws.draws)})


def confidence_set_messages(in_set: ConfidenceSet, methods: Sequence[str], best: str) -> list[Message]:
    """State which experiments and methods are statistically indistinguishable from the best.

    All statements are about the simultaneous set, so that all of them hold together.

    Args:
        in_set: The confidence set.
        methods: Method of each experiment, in the order of the set's arrays.
        best: Name of the best experiment.

    Raises:
        ValueError: If the number of methods is not the number of experiments.
    """
    members = in_set.simultaneous_members
    total, n_members = len(members), int(members.sum())
    if len(methods) != total:
        raise ValueError(f"{len(methods)} methods for {total} experiments")
    if total == 1:
        return [Message("set_one_experiment")]
    if n_members == 1:
        return [Message("set_alone", {"best": best, "others": total - 1})]
    if n_members == total:
        return [Message("set_all", {"best": best, "total": total})]
    messages = [Message("set_some", {"best": best, "members": n_members, "total": total})]
    outside = [
        method
        for method in dict.fromkeys(methods)
        if not any(member for own, member in zip(methods, members, strict=True) if own == method)
    ]
    return [*messages, *([Message("methods_outside", {"methods": outside, "best": best})] if outside else [])]


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


def correlation_messages(name: str, grouped: GroupedCorrelation, level: float) -> list[Message]:
    """State that a metric is related to accuracy within methods, if that is shown at a level."""
    if not relation_is_shown(grouped, level) or grouped.mean_within is None:
        return []
    sign = Message("sign.positive" if grouped.mean_within > 0 else "sign.negative")
    values = {"name": name_in_words(name), "r": grouped.mean_within, "n_methods": grouped.n_groups, "sign": sign}
    return [Message("relation_shown", values)]


def axes_messages(seeds: SeedErrors | None, level: float) -> list[Message]:
    """Compare the effects of the axes with the variation between calibration seeds.

    Args:
        seeds: Effects and their variation between seeds; None if they were not computed.
        level: Level of the statement on each axis, already corrected for their number.
    """
    if seeds is None:
        return []
    if seeds.reason is not None:
        return [Message("one_seed_only")] if len(seeds.seeds) == 1 else []
    return [
        _effect_message(name, effect, len(seeds.seeds), level)
        for name, effect in seeds.axes.items()
        if effect.f is not None
    ]


def base_vs_instruct_messages(measure: str, difference: float, interval: Sequence[float], n: int) -> list[Message]:
    """State whether Instruct keeps more or less than Base on their common settings.

    Args:
        measure: `kept` if the values are the accuracy kept, `accuracy` if they are accuracies.
        difference: Mean value of Instruct minus that of Base, over the common settings.
        interval: Simultaneous interval of the difference.
        n: Number of common settings.
    """
    lower, upper = interval
    settings = Message("one_setting" if n == 1 else "several_settings", {"n": n})
    if lower <= TIE and upper >= -TIE:
        points = {"points": 100 * difference, "low": 100 * lower, "high": 100 * upper}
        return [Message(f"kinds_not_told.{measure}", {"settings": settings, **points})]
    if difference < 0:
        points = {"points": -100 * difference, "low": -100 * upper, "high": -100 * lower}
        return [Message(f"kinds_lower.{measure}", {"settings": settings, **points})]
    points = {"points": 100 * difference, "low": 100 * lower, "high": 100 * upper}
    return [Message(f"kinds_higher.{measure}", {"settings": settings, **points})]


def name_in_words(name: str) -> Message | str:
    """Return an axis or metric in words; the names of gradient metrics are shown as they are."""
    if name.startswith("ppl_"):
        return Message("name.ppl_of", {"text": name.removeprefix("ppl_")})
    known = {"taylor_seq_len", "taylor_num_samples", "method", "extreme_pruning_layers"}
    return Message(f"axis.{name}") if name in known else name


def _effect_message(name: str, effect: AxisEffect, n_seeds: int, level: float) -> Message:
    f, p = effect.f or 0.0, 1.0 if effect.p is None else effect.p
    code = "axis_beyond_seeds" if p <= 1 - level else "axis_within_seeds"
    return Message(code, {"axis": name_in_words(name), "f": f, "p": p, "n_seeds": n_seeds})
