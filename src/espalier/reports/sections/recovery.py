"""Section on recovery: results before and after fine-tuning, and whether the ranking stays the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from espalier.reports.messages import Words
from espalier.reports.sections.base import MISSING, Content, ReportSection, Table, fixed, interval, plain


def with_recovery(analysis: dict[str, Any], recovery: Sequence[Content]) -> dict[str, Any]:
    """Return a copy of an analysis with the recovery statistics added to the results of each pruning ratio.

    Args:
        analysis: Analysis of a model.
        recovery: Content of its `recovery.json` as the only element; empty without recovery.
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
    """Return the section of one pruning ratio; an empty list if none of its experiments is recovered."""
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
    """Return the sort key of an experiment: accuracy after recovery, then before; missing values last."""
    name, one = item
    after, before = (math.inf if one[key] is None else -one[key] for key in ("acc_after", "acc_before"))
    return after, before, name
