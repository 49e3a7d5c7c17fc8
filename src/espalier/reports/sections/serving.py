"""Serving verdicts in words: a section of the report, and the last part of the structure comparison."""

from __future__ import annotations

from espalier.reports.messages import Words
from espalier.reports.sections.base import Content, ReportSection, Table, percent, plain


def deployment_section(words: Words, analysis: Content, content: Content) -> ReportSection:
    """Return the section on the targets that load the best experiment of a pruning ratio."""
    best = content["best"]
    if best is None:
        return ReportSection(words("s.deployment"), [words("no_valid")])
    judged = (analysis.get("deployment") or {}).get(best["experiment"])
    if judged is None or judged["reason"]:
        reason = words.say({"code": "no_structure", "values": {}}) if judged is None else words.reason(judged)
        return ReportSection(words("s.deployment"), [words("deployment.none", reason=reason)])
    about = words("deployment.about", experiment=best["experiment"])
    return ReportSection(
        words("s.deployment"), [about], deployment_tables(words, judged), deployment_remarks(words, judged)
    )


def deployment_tables(words: Words, judged: Content) -> list[Table]:
    """Return the table of targets and the table of rounding costs.

    Args:
        words: Language.
        judged: Result of `espalier.serving.verdict_json.serving_verdicts`.
    """
    targets = [
        [words(f"target.{one['target']}"), words(f"verdict.{one['verdict']}"), words(f"basis.{one['basis']}")]
        for one in judged["targets"]
    ]
    rounding = [
        [
            str(one["multiple"]), str(one["n_layers"]), plain(one["added_params"]),
            percent(one["removed_param_fraction"], digits=2),
        ]
        for one in judged["rounding"]
    ]  # fmt: skip
    header = [words(f"deployment.{code}") for code in ("target", "verdict", "basis")]
    costs = [words(f"deployment.{code}") for code in ("multiple", "n_layers", "added", "left")]
    caption = words("deployment.rounding", fraction=percent(judged["removed_param_fraction"], digits=2))
    return [Table(header, targets, (0, 1, 2)), Table(costs, rounding, (), caption)]


def deployment_remarks(words: Words, judged: Content) -> list[str]:
    """Return remarks: the messages of each target, the advice on MLP widths, and the meaning of the basis column."""
    details = [
        words(
            "deployment.details",
            target=words(f"target.{one['target']}"),
            details="; ".join(words.say(message) for message in one["said"]),
        )
        for one in judged["targets"]
        if one["said"]
    ]
    return [*(f"  • {line}" for line in details), words.say(judged["advice"]), words("deployment.basis_about")]
