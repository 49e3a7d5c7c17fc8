"""Sortable and filterable tables of a page: all experiments of a model, or the best experiments of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from espalier.reports.messages import Words
from espalier.reports.rows import Row
from espalier.reports.sections.base import MISSING, Content, by_ratio, fixed, percent, plain, yes_no


@dataclass(frozen=True)
class Cell:
    """A cell of a listing.

    Attributes:
        shown: Displayed text.
        value: Sort key of a number; None if the number is missing.
        is_number: Whether the cell is sorted by `value` and not by `shown`.
    """

    shown: str
    value: float | None = None
    is_number: bool = True


@dataclass(frozen=True)
class Listing:
    """A table that can be sorted and filtered.

    Attributes:
        caption: Caption.
        header: Titles of the columns.
        rows: Cells of each row.
        filters: Title, column index and values of each filter.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    filters: Sequence[tuple[str, int, Sequence[str]]] = field(default_factory=tuple)


def experiments_listing(words: Words, analysis: Content, rows: dict[str, list[Row]]) -> Listing:
    """Return the table of all valid experiments of a model, at all pruning ratios.

    Args:
        words: Language.
        analysis: Analysis of the model.
        rows: Experiments of each pruning ratio, by its key in the analysis.
    """
    ordered = [row for key, _ in by_ratio(analysis) for row in rows[key]]
    methods = list(dict.fromkeys(row["method"] for row in ordered))
    ratios = list(dict.fromkeys(_ratio(row["ratio"]).shown for row in ordered))
    codes = (
        "experiment", "method", "p.ratio", "seq_len", "samples", "acc_mean", "p.low", "p.high", "in_set", "kept", "ppl",
        "p.extreme", "params", "flops",
    )  # fmt: skip
    header = [*(words(code) for code in codes), *analysis["tasks"]]
    cells = [
        [
            _text(row["experiment"]), _text(row["method"]), _ratio(row["ratio"]), _whole(row["seq_len"]),
            _whole(row["samples"]), _fixed(row["acc"]), _fixed(row["low"]), _fixed(row["high"]),
            _text(yes_no(words, row["in_set"])), Cell(percent(row["acc_kept"]), row["acc_kept"]),
            _fixed(row["ppl"], 2), _whole(row["extreme"]), _whole(row["n_params"]), _whole(row["flops"]),
            *(_fixed(row["tasks"].get(task)) for task in analysis["tasks"]),
        ]
        for row in ordered
    ]  # fmt: skip
    filters = [(words("method"), 1, methods), (words("p.ratio"), 2, ratios)]
    filters.append((words("in_set"), 8, [words("yes"), words("no")]))
    return Listing(words("p.experiments"), header, cells, filters)


def best_listing(words: Words, summary: Content) -> Listing:
    """Return the table of the best experiment of each model at each pruning ratio."""
    found = [row for _, content in by_ratio(summary) for row in content["best_configs"]]
    codes = (
        "x.model", "x.kind", "p.ratio", "x.best_method", "experiment", "x.best_acc", "p.low", "p.high", "x.corrected",
        "x.n_in_set", "kept", "x.best_ppl", "ppl_ratio", "params", "kv", "flops",
    )  # fmt: skip
    cells = [
        [
            _text(row["model"]), _text(words(f"kind.{row['kind']}")), _ratio(row["pruning_ratio"]),
            _text(row["method"]), _text(row["experiment"]), _fixed(row["acc_mean"]), _end(row, 0), _end(row, 1),
            _fixed(row["acc_mean_corrected"]), _whole(row["n_in_set"]), Cell(percent(row["acc_kept"]), row["acc_kept"]),
            _fixed(row["ppl"], 2), _fixed(row["ppl_ratio"], 2), _whole(row["n_params"]),
            _whole(row["kv_cache_bytes_per_token"]), _whole(row["flops_per_token"]),
        ]
        for row in found
    ]  # fmt: skip
    columns = ((words("x.kind"), 1), (words("p.ratio"), 2), (words("x.best_method"), 3))
    filters = [(title, number, list(dict.fromkeys(row[number].shown for row in cells))) for title, number in columns]
    return Listing(words("x.best"), [words(code) for code in codes], cells, filters)


def _text(value: Any) -> Cell:
    return Cell(str(value), is_number=False)


def _whole(value: int | None) -> Cell:
    return Cell(plain(value), value)


def _fixed(value: float | None, digits: int = 4) -> Cell:
    return Cell(fixed(value, digits), value)


def _ratio(value: float | None) -> Cell:
    return Cell(MISSING if value is None else f"{100 * value:.10g}%", value)


def _end(row: Content, number: int) -> Cell:
    ends = row["acc_mean_interval"]
    return _fixed(None if ends is None else ends[number])
