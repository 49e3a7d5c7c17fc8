"""What a report shows before its sections: headline, overview and notes, and the title of each pruning ratio."""

from __future__ import annotations

from collections.abc import Sequence

from espalier.reports.formatting import format_fixed, format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.types import Content, Overview

# Codes of statements that the data support. All other statements describe open questions.
_SUPPORTED = {
    "set_alone", "method_not_in_set", "axis_largest", "axis_interaction", "axis_beyond_seeds", "tokens_told",
    "kinds_differ", "correlation_strong", "correlation_moderate", "from_documents",
}  # fmt: skip


def ratio_title(texts: Texts, ratio: float | None) -> str:
    """Return the title of a pruning ratio."""
    return texts("ratio.none") if ratio is None else texts("ratio", ratio=f"{100 * ratio:.10g}%")


def counts_line(texts: Texts, counts: Content) -> str:
    """Return the line with the numbers of experiments: total, valid and invalid, with the reasons."""
    line = texts("counts", total=counts["total"], valid=counts["valid"], invalid=counts["invalid"])
    reasons = "; ".join(f"{n} {texts(code)}" for code, n in counts["codes"].items())
    return line + (f" ({reasons})" if reasons else "")


def by_ratio(content: Content) -> list[tuple[str, Content]]:
    """Return key and results of each pruning ratio: the headline ratio first, then the others, largest first."""
    headline = content["headline_ratio"]
    ordered = sorted(content["by_ratio"].items(), key=lambda item: -item[1]["pruning_ratio"])
    first = [(key, one) for key, one in ordered if one["pruning_ratio"] == headline]
    return first + [(key, one) for key, one in ordered if one["pruning_ratio"] != headline]


def notes(texts: Texts, analysis: Content) -> list[str]:
    """Return the notes of a model: rule of the mean accuracy, missing columns, imported and failed experiments."""
    lines = [texts("note.model", rule=analysis["acc_mean_rule"])]
    if analysis["missing_columns"]:
        lines.append(texts("note.columns", columns=", ".join(analysis["missing_columns"])))
    if analysis["imported"]:
        lines.append(texts("note.imported"))
    return lines + [texts("note.of", **one) for one in analysis["notes"]]


def headline(texts: Texts, analysis: Content) -> str:
    """Return one sentence with the result of a model at its headline ratio."""
    best, versus = analysis["best"], analysis["best_vs_baseline"]
    title = ratio_title(texts, analysis["headline_ratio"])
    if best is None:
        return texts("headline.none", ratio=title)
    sentence = texts("headline.best", ratio=title, best=best["experiment"], acc=format_fixed(best["acc_mean"]))
    ends = analysis["uncertainty"]["experiments"].get(best["experiment"], {}).get("interval")
    if ends is not None:
        sentence += texts("headline.interval", low=format_fixed(ends[0]), high=format_fixed(ends[1]))
    if versus["reason"]:
        return sentence + texts("headline.reason", reason=texts.reason(versus))
    if versus["acc_kept"] is None:
        return f"{sentence}."
    unpruned = format_fixed(analysis["baseline"]["acc_mean"])
    return sentence + texts("headline.kept", kept=format_percent(versus["acc_kept"]), unpruned=unpruned)


def overview(texts: Texts, content: Content) -> Overview:
    """Return the overview of one model at its headline ratio: supported results and open questions."""
    statements = content["uncertainty"]["statements"]
    messages = [message for group in ("set", "optimism", "axes", "tokens") for message in statements.get(group, [])]
    messages += content["ppl_accuracy"]["statements"]
    messages += [message for message in statements.get("intervals", []) if message["code"] == "from_counts"]
    missing = []
    if not statements and content["best"] is not None:
        missing = [texts("certainty.none", reason=texts.reason(content["uncertainty"]))]
    return split_statements(texts, messages, missing)


def split_statements(texts: Texts, messages: Sequence[Content], missing: Sequence[str] = ()) -> Overview:
    """Divide statements into supported results and open questions.

    Args:
        texts: Texts in the language of the report.
        messages: Statements as JSON messages.
        missing: Sentences to put before the open questions.
    """
    supported = [texts.message(message) for message in messages if message["code"] in _SUPPORTED]
    open_questions = [texts.message(message) for message in messages if message["code"] not in _SUPPORTED]
    return Overview(supported, [*missing, *open_questions])
