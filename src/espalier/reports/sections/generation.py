"""Sections on generative tasks, and on documents that are longer than the model's context, where there are any."""

from __future__ import annotations

from espalier.reports.formatting import format_fixed, format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content, ReportSection, Table


def generation_sections(texts: Texts, analysis: Content, content: Content) -> list[ReportSection]:
    """Return the sections on generative tasks and on documents that are too long; none if there are neither.

    Args:
        texts: Texts in the language of the report.
        analysis: Analysis of the model.
        content: Its results at one pruning ratio.
    """
    sections = []
    if "generation" in content:
        sections.append(_generation_section(texts, content["generation"], content["best"]))
    if analysis.get("too_long"):
        sections.append(_too_long_section(texts, analysis["too_long"]))
    return sections


def _generation_section(texts: Texts, found: Content, best: Content | None) -> ReportSection:
    columns = ["acc_mean", *found["metrics"]]
    results = {texts("Unpruned"): found["unpruned"]} if found["unpruned"] else {}
    rows = [
        [name, *(format_fixed(values[column]) for column in columns)]
        for name, values in (results | found["experiments"]).items()
    ]
    header = [texts("experiment"), texts("acc_mean"), *found["metrics"]]
    return ReportSection(
        texts("s.generation"), [texts("generation.about")], [Table(header, rows)], _kept(texts, found, best)
    )


def _kept(texts: Texts, found: Content, best: Content | None) -> list[str]:
    """Return a remark on what the best experiment keeps of the unpruned results, if both are known."""
    unpruned, pruned = found["unpruned"], None if best is None else found["experiments"].get(best["experiment"])
    if not unpruned or not pruned:
        return []
    shares = {
        column: pruned[column] / unpruned[column]
        for column in ("acc_mean", *found["metrics"])
        if unpruned[column] and pruned[column] is not None
    }
    mean = shares.pop("acc_mean", None)
    if mean is None or not shares:
        return []
    listed = ", ".join(f"{metric} {format_percent(share)}" for metric, share in shares.items())
    return [texts("generation.kept", experiment=best and best["experiment"], mean=format_percent(mean), metrics=listed)]


def _too_long_section(texts: Texts, too_long: Content) -> ReportSection:
    rows = [
        [task, str(one["n_truncated"]), str(one["n_skipped"]), str(one["n_samples"])] for task, one in too_long.items()
    ]
    header = [texts(code) for code in ("too_long.task", "too_long.truncated", "too_long.skipped", "too_long.scored")]
    return ReportSection(texts("s.too_long"), [texts("too_long.about")], [Table(header, rows)])
