"""Sortable and filterable tables of a page: all experiments of a model, or the best experiments of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from espalier.reports.chart_rows import Row
from espalier.reports.formatting import MISSING, format_fixed, format_percent, format_value, format_yes_no
from espalier.reports.messages import Texts
from espalier.reports.sections.answers import percent_interval
from espalier.reports.sections.introduction import by_kept, by_ratio
from espalier.reports.sections.types import Content
from espalier.reports.site import Site


@dataclass(frozen=True)
class Cell:
    """A cell of a listing.

    Attributes:
        shown: Displayed text.
        value: Sort key of a number; None if the number is missing.
        is_number: Whether the cell is sorted by `value` and not by `shown`.
        link: Address that the cell links to.
        more: Text after `shown`, which is not printed on paper.
    """

    shown: str
    value: float | None = None
    is_number: bool = True
    link: str | None = None
    more: str = ""


PRINTED_TASKS = 8
"""A printed page has no room for the columns of more tasks."""


@dataclass(frozen=True)
class Listing:
    """A table that can be sorted and filtered.

    Attributes:
        caption: Caption.
        header: Titles of the columns.
        rows: Cells of each row.
        filters: Title, column index and values of each filter.
        not_printed: Indices of the columns that are left out on paper.
        print_note: What is left out on paper; empty if nothing is.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    filters: Sequence[tuple[str, int, Sequence[str]]] = field(default_factory=tuple)
    not_printed: Sequence[int] = ()
    print_note: str = ""


def experiments_listing(
    texts: Texts, analysis: Content, rows: dict[str, list[Row]], site: Site | None = None
) -> Listing:
    """Return the table of all valid experiments of a model, at all pruning ratios.

    Args:
        texts: Texts in the language of the report.
        analysis: Analysis of the model.
        rows: Experiments of each pruning ratio, by its key in the analysis.
        site: The pages of the study, to link the structure of each experiment.
    """
    site = site or Site()
    ordered = [row for key, _ in by_ratio(analysis) for row in rows[key]]
    methods = list(dict.fromkeys(row["method"] for row in ordered))
    ratios = list(dict.fromkeys(_ratio_cell(row["ratio"]).shown for row in ordered))
    codes = (
        "experiment", "method", "p.ratio", "seq_len", "samples", "acc_mean", "p.low", "p.high", "in_set", "kept", "ppl",
        "p.extreme", "params", "flops",
    )  # fmt: skip
    header = [*(texts(code) for code in codes), *analysis["tasks"]]
    cells = [
        [
            _text_cell(row["experiment"], site.structure(analysis["model"], row["experiment"])),
            _text_cell(row["method"]), _ratio_cell(row["ratio"]), _int_cell(row["seq_len"]), _int_cell(row["samples"]),
            _fixed_cell(row["acc"]), _fixed_cell(row["low"]), _fixed_cell(row["high"]),
            _text_cell(format_yes_no(texts, row["in_set"])),
            Cell(format_percent(row["acc_kept"]), row["acc_kept"]), _fixed_cell(row["ppl"], 2),
            _int_cell(row["extreme"]), _int_cell(row["n_params"]), _int_cell(row["flops"]),
            *(_fixed_cell(row["tasks"].get(task)) for task in analysis["tasks"]),
        ]
        for row in ordered
    ]  # fmt: skip
    filters = [(texts("method"), 1, methods), (texts("p.ratio"), 2, ratios)]
    filters.append((texts("in_set"), 8, [texts("yes"), texts("no")]))
    left_out = _not_printed(len(codes), analysis["tasks"])
    note = texts("p.no_tasks") if left_out else ""
    return Listing(texts(listing_title([analysis])), header, cells, filters, left_out, note)


def all_experiments_listing(
    texts: Texts, analyses: Sequence[Content], rows: Sequence[dict[str, list[Row]]], site: Site
) -> Listing:
    """Return the table of all valid experiments of all models, with the accuracy and standard error of each task.

    Args:
        texts: Texts in the language of the report.
        analyses: Analysis of each model.
        rows: Experiments of each model, by the key of the pruning ratio in its analysis.
        site: The pages of the study.
    """
    tasks = list(dict.fromkeys(task for analysis in analyses for task in analysis["tasks"]))
    codes = (
        "x.model", "experiment", "method", "p.ratio", "seq_len", "samples", "acc_mean", "p.low", "p.high", "in_set",
        "kept", "ppl", "params",
    )  # fmt: skip
    cells = [
        _experiment_cells(texts, analysis["model"], row, tasks, site)
        for analysis, of_model in zip(analyses, rows, strict=True)
        for key, _ in by_ratio(analysis)
        for row in of_model[key]
    ]
    columns = ((texts("x.model"), 0), (texts("method"), 2), (texts("p.ratio"), 3))
    filters = [(title, number, list(dict.fromkeys(row[number].shown for row in cells))) for title, number in columns]
    filters.append((texts("in_set"), 9, [texts("yes"), texts("no")]))
    header = [*(texts(code) for code in codes), *tasks]
    left_out = _not_printed(len(codes), tasks)
    has_more = any(cell.more for row in cells for cell in row)
    note = texts("p.no_tasks") if left_out else texts("p.no_stderr") if has_more else ""
    return Listing(texts(listing_title(analyses)), header, cells, filters, left_out, note)


def listing_title(analyses: Sequence[Content]) -> str:
    """Return the code of the title of a table of experiments, which has the valid ones: all of them, or not all."""
    has_invalid = any(analysis["all_ratios"]["experiments"]["invalid"] for analysis in analyses)
    return "p.valid_experiments" if has_invalid else "p.experiments"


def _not_printed(first: int, tasks: Sequence[str]) -> list[int]:
    """Return the columns of the tasks, which begin at `first`, if paper has no room for them."""
    return list(range(first, first + len(tasks))) if len(tasks) > PRINTED_TASKS else []


def _experiment_cells(texts: Texts, model: str, row: Row, tasks: Sequence[str], site: Site) -> list[Cell]:
    return [
        _text_cell(model, site.model(model)),
        _text_cell(row["experiment"], site.structure(model, row["experiment"])),
        _text_cell(row["method"]), _ratio_cell(row["ratio"]), _int_cell(row["seq_len"]), _int_cell(row["samples"]),
        _fixed_cell(row["acc"]), _fixed_cell(row["low"]), _fixed_cell(row["high"]),
        _text_cell(format_yes_no(texts, row["in_set"])), Cell(format_percent(row["acc_kept"]), row["acc_kept"]),
        _fixed_cell(row["ppl"], 2), _int_cell(row["n_params"]),
        *(_task_cell(row["tasks"].get(task), row["task_stderr"].get(task)) for task in tasks),
    ]  # fmt: skip


def best_listing(texts: Texts, summary: Content, site: Site | None = None) -> Listing:
    """Return the table of the best experiment of each model at each pruning ratio."""
    site = site or Site()
    best = [row for _, content in by_ratio(summary) for row in by_kept(content["best_configs"])]
    codes = (
        "x.model", "x.kind", "p.ratio", "x.best_method", "kept", "kept_ci", "experiment", "x.best_acc", "p.low",
        "p.high", "x.corrected", "x.n_in_set", "x.best_ppl", "ppl_ratio", "params", "kv", "flops",
    )  # fmt: skip
    cells = [
        [
            _text_cell(row["model"], site.model(row["model"])), _text_cell(texts(f"kind.{row['kind']}")),
            _ratio_cell(row["pruning_ratio"]), _text_cell(row["method"]),
            Cell(format_percent(row["acc_kept"]), row["acc_kept"]),
            _text_cell(percent_interval(texts, row["acc_kept_interval"])),
            _text_cell(row["experiment"], site.structure(row["model"], row["experiment"])),
            _fixed_cell(row["acc_mean"]), _interval_end_cell(row, 0), _interval_end_cell(row, 1),
            _fixed_cell(row["acc_mean_corrected"]),
            _int_cell(row["n_in_simultaneous_set"]), _fixed_cell(row["ppl"], 2), _fixed_cell(row["ppl_ratio"], 2),
            _int_cell(row["n_params"]),
            _int_cell(row["kv_cache_bytes_per_token"]), _int_cell(row["flops_per_token"]),
        ]
        for row in best
    ]  # fmt: skip
    columns = ((texts("x.kind"), 1), (texts("p.ratio"), 2), (texts("x.best_method"), 3))
    filters = [(title, number, list(dict.fromkeys(row[number].shown for row in cells))) for title, number in columns]
    return Listing(texts("x.best"), [texts(code) for code in codes], cells, filters)


def _text_cell(value: Any, link: str | None = None) -> Cell:
    return Cell(str(value), is_number=False, link=link)


def _task_cell(acc: float | None, stderr: float | None) -> Cell:
    return Cell(format_fixed(acc, 3), acc, more="" if stderr is None else f" ± {format_fixed(stderr, 3)}")


def _int_cell(value: int | None) -> Cell:
    return Cell(format_value(value), value)


def _fixed_cell(value: float | None, digits: int = 4) -> Cell:
    return Cell(format_fixed(value, digits), value)


def _ratio_cell(value: float | None) -> Cell:
    return Cell(MISSING if value is None else f"{100 * value:.10g}%", value)


def _interval_end_cell(row: Content, number: int) -> Cell:
    ends = row["acc_mean_interval"]
    return _fixed_cell(None if ends is None else ends[number])
