"""Section on recovery: results before and after fine-tuning, and whether the ranking stays the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from espalier.reports.formatting import MISSING, format_fixed, format_interval, format_value
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content, ReportSection, Table


def with_recovery(analysis: dict[str, Any], recovery: Sequence[Content]) -> dict[str, Any]:
    """Return a copy of an analysis with the recovery statistics added to the results of each pruning ratio.

    Args:
        analysis: Analysis of a model.
        recovery: Content of its `recovery.json` as the only element; empty without recovery.
    """
    added = dict(analysis)
    for one in recovery:
        by_ratio = {
            key: {**content, "recovery": one["by_ratio"].get(key), "recovery_reason": one["why"]}
            for key, content in analysis["by_ratio"].items()
        }
        added["by_ratio"] = by_ratio
    return added


def recovery_sections(texts: Texts, content: Content) -> list[ReportSection]:
    """Return the section of one pruning ratio; an empty list if none of its experiments is recovered."""
    recovery = content.get("recovery")
    if not recovery:
        return []
    experiments = recovery["experiments"]
    rows = [
        [
            texts("control", name=name) if one["control"] else name, format_fixed(one["acc_before"]),
            format_fixed(one["acc_after"]), _format_change(one["change"]),
            format_interval(texts, one["change_interval"]), format_fixed(one["ppl_before"], 2),
            format_fixed(one["ppl_after"], 2), format_fixed(one["seconds"], 0),
        ]
        for name, one in sorted(experiments.items(), key=_accuracy_sort_key)
    ]  # fmt: skip
    codes = ("before", "after", "change", "change_ci", "ppl_before", "ppl_after", "seconds")
    header = [texts("experiment"), *(texts(f"recovery.{code}") for code in codes)]
    tokens = {one["n_tokens"] for one in experiments.values()} - {None}
    values = {"tokens": format_value(max(tokens, default=None)), "text": format_value(recovery["text"])}
    full = any(one.get("trained") == "full" for one in experiments.values())
    about = texts("recovery.about.full" if full else "recovery.about", **values)
    if any(one.get("distilled") for one in experiments.values()):
        about += " " + texts("recovery.distilled")
    remarks = [texts.message(message) for message in recovery["statements"]]
    if content["recovery_reason"]:
        remarks.append(texts("recovery.none", reason=texts.message(content["recovery_reason"])))
    remarks += [
        texts("recovery.not_finished", experiment=name, reason=one["note"] or texts(f"reason.{one['status']}"))
        for name, one in experiments.items()
        if one["status"] != "ok"
    ]
    return [ReportSection(texts("s.recovery"), [about, texts("recovery.level")], [Table(header, rows)], remarks)]


def _format_change(value: float | None) -> str:
    return MISSING if value is None else f"{value:+z.4f}"


def _accuracy_sort_key(item: tuple[str, Content]) -> tuple[float, float, str]:
    """Return the sort key of an experiment: accuracy after recovery, then before; missing values last."""
    name, one = item
    after, before = (math.inf if one[key] is None else -one[key] for key in ("acc_after", "acc_before"))
    return after, before, name
