"""Building blocks of report sections, number formats and headlines.

`espalier.reports.text` and `espalier.reports.html` lay out the same sections, so both reports have the same content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espalier.reports.messages import Words

MISSING = "\N{EN DASH}"
Content = Mapping[str, Any]

# Codes of statements that the data support. All other statements describe open questions.
_SUPPORTED = {
    "set_alone", "method_not_in_set", "axis_largest", "axis_interaction", "axis_beyond_seeds", "tokens_told",
    "kinds_differ", "correlation_strong", "correlation_moderate", "from_documents",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of formatted cells.

    Attributes:
        header: Titles of the columns.
        rows: Cells of each row.
        words: Indices of the columns that hold text; the others hold numbers.
        caption: Caption; may be empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)
    caption: str = ""

    def is_number(self, column: int) -> bool:
        """Return whether a column holds numbers. These columns are aligned right."""
        return column not in self.words


@dataclass(frozen=True)
class ReportSection:
    """A numbered section of a report.

    Attributes:
        title: Title.
        paragraphs: Paragraphs before the tables.
        tables: Tables.
        remarks: Paragraphs after the tables.
        figures: Names of the figures of the section.
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    remarks: Sequence[str] = ()
    figures: Sequence[str] = ()


@dataclass(frozen=True)
class Overview:
    """Main results in sentences: those that the data support, and open questions."""

    supported: Sequence[str]
    open: Sequence[str]


def fixed(value: float | None, digits: int = 4) -> str:
    """Format a number with a fixed number of decimals; None becomes a dash."""
    return MISSING if value is None else f"{value:z,.{digits}f}"


def percent(value: float | None, *, sign: bool = False, digits: int = 1) -> str:
    """Format a fraction as a percentage; None becomes a dash."""
    return MISSING if value is None else f"{100 * value:{'+' if sign else ''}z.{digits}f}%"


def plain(value: object) -> str:
    """Format a name or a whole number, with thousands separators from 10,000 on; None becomes a dash."""
    return MISSING if value is None else f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def interval(words: Words, ends: Sequence[float] | None, digits: int = 4) -> str:
    """Format an interval; None becomes a dash."""
    return MISSING if ends is None else words("interval", low=fixed(ends[0], digits), high=fixed(ends[1], digits))


def yes_no(words: Words, value: object) -> str:
    """Format a truth value; None becomes a dash."""
    return MISSING if value is None else words("yes" if value else "no")


def with_relative(value: object, relative: float | None) -> str:
    """Format a cost, followed by its percentage of the unpruned model's cost if that is known."""
    return plain(value) if value is None or relative is None else f"{plain(value)} ({percent(relative)})"


def ratio_title(words: Words, ratio: float | None) -> str:
    """Return the title of a pruning ratio."""
    return words("ratio.none") if ratio is None else words("ratio", ratio=f"{100 * ratio:.10g}%")


def counts_line(words: Words, counts: Content) -> str:
    """Return the line with the numbers of experiments: total, valid and invalid, with the reasons."""
    line = words("counts", total=counts["total"], valid=counts["valid"], invalid=counts["invalid"])
    reasons = "; ".join(f"{n} {words.reason(reason)}" for reason, n in counts["reasons"].items())
    return line + (f" ({reasons})" if reasons else "")


def by_ratio(content: Content) -> list[tuple[str, Content]]:
    """Return key and results of each pruning ratio: the headline ratio first, then the others, largest first."""
    headline = content["headline_ratio"]
    ordered = sorted(content["by_ratio"].items(), key=lambda item: -item[1]["pruning_ratio"])
    first = [(key, one) for key, one in ordered if one["pruning_ratio"] == headline]
    return first + [(key, one) for key, one in ordered if one["pruning_ratio"] != headline]


def notes(words: Words, analysis: Content) -> list[str]:
    """Return the notes of a model: rule of the mean accuracy, missing columns, imported and failed experiments."""
    said = [words("note.model", rule=analysis["acc_mean_rule"])]
    if analysis["missing_columns"]:
        said.append(words("note.columns", columns=", ".join(analysis["missing_columns"])))
    if analysis["imported"]:
        said.append(words("note.imported"))
    return said + [words("note.of", **one) for one in analysis["notes"]]


def headline(words: Words, analysis: Content) -> str:
    """Return one sentence with the result of a model at its headline ratio."""
    best, versus = analysis["best"], analysis["best_vs_baseline"]
    title = ratio_title(words, analysis["headline_ratio"])
    if best is None:
        return words("headline.none", ratio=title)
    sentence = words("headline.best", ratio=title, best=best["experiment"], acc=fixed(best["acc_mean"]))
    ends = analysis["uncertainty"]["experiments"].get(best["experiment"], {}).get("interval")
    if ends is not None:
        sentence += words("headline.interval", low=fixed(ends[0]), high=fixed(ends[1]))
    if versus["reason"]:
        return sentence + words("headline.reason", reason=words.reason(versus))
    if versus["acc_kept"] is None:
        return f"{sentence}."
    unpruned = fixed(analysis["baseline"]["acc_mean"])
    return sentence + words("headline.kept", kept=percent(versus["acc_kept"]), unpruned=unpruned)


def overview(words: Words, content: Content) -> Overview:
    """Return the overview of one model at its headline ratio: supported results and open questions."""
    statements = content["uncertainty"]["statements"]
    found = [message for group in ("set", "optimism", "axes", "tokens") for message in statements.get(group, [])]
    found += content["ppl_accuracy"]["statements"]
    found += [message for message in statements.get("intervals", []) if message["code"] == "from_counts"]
    missing = []
    if not statements and content["best"] is not None:
        missing = [words("certainty.none", reason=words.reason(content["uncertainty"]))]
    return split_statements(words, found, missing)


def split_statements(words: Words, messages: Sequence[Content], missing: Sequence[str] = ()) -> Overview:
    """Divide statements into supported results and open questions.

    Args:
        words: Language.
        messages: Statements as JSON messages.
        missing: Sentences to put before the open questions.
    """
    supported = [words.say(message) for message in messages if message["code"] in _SUPPORTED]
    left = [words.say(message) for message in messages if message["code"] not in _SUPPORTED]
    return Overview(supported, [*missing, *left])
