"""What sections are made of; `text` and `html` only lay them out, so they always agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espalier.reports.messages import Words

MISSING = "\N{EN DASH}"
Content = Mapping[str, Any]

# What a statement must be to count as supported by the data; all others say what is open.
_SUPPORTED = {
    "set_alone", "method_not_in_set", "axis_largest", "axis_interaction", "axis_beyond_seeds", "tokens_told",
    "kinds_differ", "correlation_strong", "correlation_moderate", "from_documents",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of formatted cells. Columns whose numbers are in `words` hold words, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)
    caption: str = ""

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers (and is aligned right)."""
        return column not in self.words


@dataclass(frozen=True)
class ReportSection:
    """A numbered section: paragraphs, tables, paragraphs after them, and the names of its figures."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    remarks: Sequence[str] = ()
    figures: Sequence[str] = ()


@dataclass(frozen=True)
class Overview:
    """What the data support and what they leave open, in sentences."""

    supported: Sequence[str]
    open: Sequence[str]


def fixed(value: float | None, digits: int = 4) -> str:
    """Format a number with a fixed number of digits; a dash where there is none."""
    return MISSING if value is None else f"{value:z,.{digits}f}"


def percent(value: float | None, *, sign: bool = False, digits: int = 1) -> str:
    """Format a share as a percentage."""
    return MISSING if value is None else f"{100 * value:{'+' if sign else ''}z.{digits}f}%"


def plain(value: object) -> str:
    """Format a name or a whole number."""
    return MISSING if value is None else f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def interval(words: Words, ends: Sequence[float] | None, digits: int = 4) -> str:
    """Format an interval; a dash where there is none."""
    return MISSING if ends is None else words("interval", low=fixed(ends[0], digits), high=fixed(ends[1], digits))


def yes_no(words: Words, value: object) -> str:
    """Format a truth value; a dash where there is none."""
    return MISSING if value is None else words("yes" if value else "no")


def with_relative(value: object, relative: float | None) -> str:
    """Format a cost with its share of the unpruned model's."""
    return plain(value) if value is None or relative is None else f"{plain(value)} ({percent(relative)})"


def ratio_title(words: Words, ratio: float | None) -> str:
    """Name a pruning ratio."""
    return words("ratio.none") if ratio is None else words("ratio", ratio=f"{100 * ratio:.10g}%")


def counts_line(words: Words, counts: Content) -> str:
    """Say how many experiments there are and count."""
    line = words("counts", total=counts["total"], valid=counts["valid"], invalid=counts["invalid"])
    reasons = "; ".join(f"{n} {words.reason(reason)}" for reason, n in counts["reasons"].items())
    return line + (f" ({reasons})" if reasons else "")


def by_ratio(content: Content) -> list[tuple[str, Content]]:
    """List the results of each pruning ratio, the headline first, then the others from the largest."""
    headline = content["headline_ratio"]
    ordered = sorted(content["by_ratio"].items(), key=lambda item: -item[1]["pruning_ratio"])
    first = [(key, one) for key, one in ordered if one["pruning_ratio"] == headline]
    return first + [(key, one) for key, one in ordered if one["pruning_ratio"] != headline]


def notes(words: Words, analysis: Content) -> list[str]:
    """Say by which rule accuracies are means, what the table lacks, and what was odd about imported experiments."""
    said = [words("note.model", rule=analysis["acc_mean_rule"])]
    if analysis["missing_columns"]:
        said.append(words("note.columns", columns=", ".join(analysis["missing_columns"])))
    if analysis["imported"]:
        said.append(words("note.imported"))
    return said + [words("note.of", **one) for one in analysis["notes"]]


def headline(words: Words, analysis: Content) -> str:
    """Say the result of a model at its headline ratio in a sentence."""
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
    """Say in words what the results of one model at one ratio support and what they leave open."""
    statements = content["uncertainty"]["statements"]
    found = [message for group in ("set", "optimism", "axes", "tokens") for message in statements.get(group, [])]
    found += content["ppl_accuracy"]["statements"]
    found += [message for message in statements.get("intervals", []) if message["code"] == "from_counts"]
    missing = []
    if not statements and content["best"] is not None:
        missing = [words("certainty.none", reason=words.reason(content["uncertainty"]))]
    return split_statements(words, found, missing)


def split_statements(words: Words, messages: Sequence[Content], missing: Sequence[str] = ()) -> Overview:
    """Sort statements into what is supported and what is open."""
    supported = [words.say(message) for message in messages if message["code"] in _SUPPORTED]
    left = [words.say(message) for message in messages if message["code"] not in _SUPPORTED]
    return Overview(supported, [*missing, *left])
