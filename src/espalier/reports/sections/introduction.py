"""What a report shows before its sections: headline, overview and notes, and the title of each pruning ratio."""

from __future__ import annotations

from collections.abc import Sequence

from espalier.analysis.selection import STOPPED
from espalier.reports.formatting import format_fixed, format_percent
from espalier.reports.messages import Texts
from espalier.reports.sections.answers import common_documents_label, kept_table, sentences
from espalier.reports.sections.types import Content, Overview, Table

# Beginnings of the codes of statements that the data support. All other statements describe open questions.
_SUPPORTED = (
    "method_better", "model_better", "control_better", "better_than_control", "length_better", "samples_better",
    "tokens_better", "order_turns", "length_turns", "samples_turn", "set_alone", "methods_outside",
    "axis_beyond_seeds", "kinds_higher", "kinds_lower", "relation_shown", "from_documents",
)  # fmt: skip
# Statements on methods that are not better than a control. The headline has them, too.
_NO_BETTER = ("control_better", "control_open")


def ratio_title(texts: Texts, ratio: float | None) -> str:
    """Return the title of a pruning ratio."""
    return texts("ratio.none") if ratio is None else texts("ratio", ratio=f"{100 * ratio:.10g}%")


def counts_line(texts: Texts, counts: Content) -> str:
    """Return the line with the numbers of experiments: total, valid and invalid, with the reasons.

    The analysis counts experiments that a race stopped among the invalid ones. Here they are not, because they are
    compared with the others on the documents that all have answered.
    """
    codes = dict(counts["codes"])
    stopped = codes.pop(STOPPED, 0)
    values = {"total": counts["total"], "valid": counts["valid"], "invalid": counts["invalid"] - stopped}
    line = texts("counts.raced", stopped=stopped, **values) if stopped else texts("counts", **values)
    reasons = "; ".join(f"{n} {texts(code)}" for code, n in codes.items())
    return line + (f" ({reasons})" if reasons else "")


def by_ratio(content: Content) -> list[tuple[str, Content]]:
    """Return key and results of each pruning ratio: the headline ratio first, then the others, largest first."""
    headline = content["headline_ratio"]
    ordered = sorted(content["by_ratio"].items(), key=lambda item: -item[1]["pruning_ratio"])
    first = [(key, one) for key, one in ordered if one["pruning_ratio"] == headline]
    return first + [(key, one) for key, one in ordered if one["pruning_ratio"] != headline]


def by_kept(best_configs: Sequence[Content]) -> list[Content]:
    """Order best configurations by what they keep; those of which that is not known come last, by accuracy."""

    def order(row: Content) -> tuple[bool, float, float, str]:
        kept = row["acc_kept"]
        return kept is None, 0.0 if kept is None else -kept, -row["acc_mean"], row["model"]

    return sorted(best_configs, key=order)


def notes(texts: Texts, analysis: Content) -> list[str]:
    """Return the notes of a model: rule of the mean accuracy, missing columns, imported and failed experiments."""
    lines = [texts("note.model", rule=texts(f"rule.{analysis['acc_mean_rule']}")), texts("note.error")]
    if analysis["missing_columns"]:
        lines.append(texts("note.columns", columns=", ".join(analysis["missing_columns"])))
    if analysis["imported"]:
        lines.append(texts("note.imported"))
    if common_documents_label(texts, analysis):
        lines.append(texts("note.race"))
    return lines + [texts("note.of", **one) for one in analysis["notes"]]


def headline(texts: Texts, analysis: Content) -> str:
    """Return the result of a model at its headline ratio, and its main differences between methods and settings."""
    best, versus = analysis["best"], analysis["best_vs_baseline"]
    title = ratio_title(texts, analysis["headline_ratio"])
    if best is None:
        return texts("headline.none", ratio=title)
    certain = analysis["uncertainty"]["experiments"].get(best["experiment"], {})
    acc = format_fixed(best["acc_mean"])
    if versus["reason"] or versus["acc_kept"] is None:
        sentence = texts("headline.best", ratio=title, best=best["experiment"], acc=acc)
        if (ends := certain.get("interval")) is not None:
            sentence += texts("headline.interval", low=format_fixed(ends[0]), high=format_fixed(ends[1]))
        sentence += texts("headline.reason", reason=texts.reason(versus)) if versus["reason"] else texts("stop")
    else:
        ends = certain.get("acc_kept_interval")
        values = {"best": best["experiment"], "kept": format_percent(versus["acc_kept"]), "acc": acc}
        interval = "" if ends is None else texts(
            "headline.interval", low=format_percent(ends[0]), high=format_percent(ends[1])
        )  # fmt: skip
        unpruned = format_fixed(analysis["baseline"]["acc_mean"])
        sentence = texts("headline.kept", ratio=title, interval=interval, unpruned=unpruned, **values)
        sentence = " ".join([sentence, *noise_caveat(texts, analysis)])
    outside = [message for message in _set_statements(analysis) if message["code"] != "methods_outside"]
    messages = [*headline_statements(analysis["comparisons"]), *outside]
    return " ".join([sentence, *(texts.message(message) for message in messages)])


def headline_statements(compared: Content) -> list[Content]:
    """Return the main statements on differences.

    These are the methods that are no better than a control, how much better the method with the highest mean is than
    the two next methods, and the largest difference between sequence lengths and between numbers of samples. If none of
    a kind is told apart, the statement that says so takes its place.

    Args:
        compared: The comparisons of one model, or over all models.
    """
    controls, methods, settings = (
        sentences(compared["statements"], kind) for kind in ("controls", "methods", "settings")
    )
    means = {name: one["mean"] for name, one in compared["kept"].items() if not one["control"]}
    best = max(means, key=lambda name: means[name], default=None)
    better = [one for one in methods if one["code"].startswith("method_better") and one["values"]["first"] == best]
    better.sort(key=lambda one: -means.get(one["values"]["second"], 0.0))
    found = [one for one in controls if one["code"].startswith(_NO_BETTER)]
    found += better[:2] or methods[:1]  # the first statement is the largest difference, if one is told apart
    for axis in ("length", "samples"):
        found += [one for one in settings if one["code"].startswith(f"{axis}_")][:1]
    return found


def noise_caveat(texts: Texts, content: Content) -> list[str]:
    """Return the caveat on a best experiment above the unpruned model, unless the 95% interval excludes 1.

    Args:
        texts: Texts in the language of the report.
        content: Results of a model at one pruning ratio.
    """
    kept = content["best_vs_baseline"]["acc_kept"]
    if content["best"] is None or kept is None or kept <= 1:
        return []
    of_best = content["uncertainty"]["experiments"].get(content["best"]["experiment"], {})
    ends = of_best.get("acc_kept_interval")
    return [texts("headline.above")] if ends is None or ends[0] <= 1 else []


def overview(texts: Texts, content: Content) -> Overview:
    """Return the overview of one model: its statements on methods and settings at each ratio, and on uncertainty."""
    supported = [texts.message(message) for message in content["turning"]]
    open_questions: list[str] = []
    tables: list[Table] = []
    for _, one in by_ratio(content):
        messages = _statements(one, "controls", "methods", "settings") + [
            m for m in _set_statements(one) if m["code"] == "methods_outside"
        ]
        found = split_statements(texts, messages)
        title = ratio_title(texts, one["pruning_ratio"])
        several = len(content["by_ratio"]) > 1
        supported += [at_ratio(texts, title, text) if several else text for text in found.supported]
        open_questions += [at_ratio(texts, title, text) if several else text for text in found.open_questions]
        tables += kept_table(texts, one, title)
    rest = _statements_of_uncertainty(content)
    found = split_statements(texts, rest)
    missing = []
    if not content["uncertainty"]["statements"] and content["best"] is not None:
        missing = [texts("certainty.none", reason=texts.reason(content["uncertainty"]))]
    return Overview([*supported, *found.supported], [*missing, *open_questions, *found.open_questions], tables)


def at_ratio(texts: Texts, title: str, sentence: str) -> str:
    """Return a sentence with the pruning ratio that it is about."""
    return texts("at_ratio", ratio=title, text=sentence)


def split_statements(texts: Texts, messages: Sequence[Content]) -> Overview:
    """Divide statements into supported results and open questions.

    Args:
        texts: Texts in the language of the report.
        messages: Statements as JSON messages.
    """
    supported = [texts.message(message) for message in messages if message["code"].startswith(_SUPPORTED)]
    open_questions = [texts.message(message) for message in messages if not message["code"].startswith(_SUPPORTED)]
    return Overview(supported, open_questions)


def _statements(content: Content, *kinds: str) -> list[Content]:
    return sentences(content["comparisons"]["statements"], *kinds)


def _set_statements(content: Content) -> list[Content]:
    return list(content["uncertainty"]["statements"].get("set", []))


def _statements_of_uncertainty(content: Content) -> list[Content]:
    statements = content["uncertainty"]["statements"]
    from_counts = [message for message in statements.get("intervals", []) if message["code"] == "from_counts"]
    return [*statements.get("axes", []), *content["ppl_accuracy"]["statements"], *from_counts]
