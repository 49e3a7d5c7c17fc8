"""Serving verdicts in words: a section of the report, and the last part of the structure comparison."""

from __future__ import annotations

from espalier.reports.formatting import format_percent, format_value
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content, ReportSection, Table


def serving_section(texts: Texts, analysis: Content, content: Content) -> ReportSection:
    """Return the section on the targets that load the best experiment of a pruning ratio."""
    best = content["best"]
    if best is None:
        return ReportSection(texts("s.deployment"), [texts("no_valid")])
    verdicts = (analysis.get("deployment") or {}).get(best["experiment"])
    if verdicts is None or verdicts["reason"]:
        reason = texts("no_structure") if verdicts is None else texts.reason(verdicts)
        return ReportSection(texts("s.deployment"), [texts("deployment.none", reason=reason)])
    about = texts("deployment.about", experiment=best["experiment"])
    return ReportSection(
        texts("s.deployment"), [about], serving_tables(texts, verdicts), serving_remarks(texts, verdicts),
        items=serving_details(texts, verdicts),
    )  # fmt: skip


def serving_tables(texts: Texts, verdicts: Content) -> list[Table]:
    """Return the table of targets and the table of rounding costs.

    Args:
        texts: Texts in the language of the report.
        verdicts: Result of `espalier.serving.verdict_json.serving_verdicts`.
    """
    targets = [
        [texts(f"target.{one['target']}"), texts(f"verdict.{one['verdict']}"), texts(f"basis.{one['basis']}")]
        for one in verdicts["targets"]
    ]
    rounding = [
        [
            str(one["multiple"]), str(one["n_layers"]), format_value(one["added_params"]),
            format_percent(one["removed_param_fraction"], digits=2),
        ]
        for one in verdicts["rounding"]
    ]  # fmt: skip
    header = [texts(f"deployment.{code}") for code in ("target", "verdict", "basis")]
    costs = [texts(f"deployment.{code}") for code in ("multiple", "n_layers", "added", "left")]
    caption = texts("deployment.rounding", fraction=format_percent(verdicts["removed_param_fraction"], digits=2))
    return [Table(header, targets, (0, 1, 2)), Table(costs, rounding, (), caption)]


def serving_details(texts: Texts, verdicts: Content) -> list[str]:
    """Return what each target needs or refuses, one item for each target of which something is said."""
    return [
        texts(
            "deployment.details",
            target=texts(f"target.{one['target']}"),
            details="; ".join(texts.message(message) for message in one["said"]),
        )
        for one in verdicts["targets"]
        if one["said"]
    ]


def serving_remarks(texts: Texts, verdicts: Content) -> list[str]:
    """Return remarks: stock shape, advice on MLP widths, and meaning of the basis column."""
    return [
        _stock_line(texts, verdicts["stock"]),
        texts.message(verdicts["advice"]),
        texts("deployment.basis_about"),
    ]


def _stock_line(texts: Texts, stock: Content) -> str:
    if stock["has_shape"]:
        return texts("deployment.stock")
    return texts("deployment.not_stock", details="; ".join(texts.message(message) for message in stock["said"]))
