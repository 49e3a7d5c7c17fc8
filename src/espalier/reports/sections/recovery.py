"""The section on recovery: before and after, and whether the order survives. Nothing where nothing was recovered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from espalier.reports.messages import Words
from espalier.reports.sections.base import MISSING, Content, ReportSection, Table, fixed, interval, plain


def with_recovery(analysis: dict[str, Any], recovery: Sequence[Content]) -> dict[str, Any]:
    """Put the statistics of recovered experiments beside the results of their ratio.

    Args:
        analysis: Analysis of a model.
        recovery: Its `recovery.json`; none where nothing is recovered.
    """
    added = dict(analysis)
    for one in recovery:
        of_ratio = {
            key: {**content, "recovery": one["by_ratio"].get(key), "recovery_reason": one["why"]}
            for key, content in analysis["by_ratio"].items()
        }
        added["by_ratio"] = of_ratio
    return added


def recovery_sections(words: Words, content: Content) -> list[ReportSection]:
    """Make the section of one pruning ratio; none where none of its experiments is recovered."""
    recovery = content.get("recovery")
    if not recovery:
        return []
    experiments = recovery["experiments"]
    rows = [
        [
            words("control", name=name) if one["control"] else name, fixed(one["acc_before"]), fixed(one["acc_after"]),
            _signed(one["change"]), interval(words, one["change_interval"]), fixed(one["ppl_before"], 2),
            fixed(one["ppl_after"], 2), fixed(one["seconds"], 0),
        ]
        for name, one in sorted(experiments.items(), key=_by_accuracy)
    ]  # fmt: skip
    codes = ("before", "after", "change", "change_ci", "ppl_before", "ppl_after", "seconds")
    header = [words("experiment"), *(words(f"recovery.{code}") for code in codes)]
    tokens = {one["n_tokens"] for one in experiments.values()} - {None}
    about = words("recovery.about", tokens=plain(max(tokens, default=None)), text=plain(recovery["text"]))
    remarks = [words.say(message) for message in recovery["statements"]]
    if content["recovery_reason"]:
        remarks.append(words("recovery.none", reason=words.say(content["recovery_reason"])))
    remarks += [
        words("recovery.not_finished", experiment=name, reason=one["note"] or words.reason(one["status"]))
        for name, one in experiments.items()
        if one["status"] != "ok"
    ]
    return [ReportSection(words("s.recovery"), [about], [Table(header, rows)], remarks)]


def _signed(value: float | None) -> str:
    return MISSING if value is None else f"{value:+z.4f}"


def _by_accuracy(item: tuple[str, Content]) -> tuple[float, float, str]:
    """Order by accuracy after recovery, then before; what is not there comes last."""
    name, one = item
    return -(one["acc_after"] or 0.0), -(one["acc_before"] or 0.0), name
