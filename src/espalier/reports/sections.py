"""What a report says, section by section; `text` and `html` only lay it out, so they always agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "\N{EN DASH}"
Content = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of formatted cells. Columns named in `words` hold words, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str]

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers (and is aligned right)."""
        return self.header[column] not in self.words


@dataclass(frozen=True)
class Section:
    """A numbered section: paragraphs, tables, paragraphs after them, and the names of its figures."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    remarks: Sequence[str] = ()
    figures: Sequence[str] = ()


def fixed(value: float | None, digits: int = 4) -> str:
    """Format a number with a fixed number of digits; a dash where there is none."""
    return MISSING if value is None else f"{value:z,.{digits}f}"


def percent(value: float | None, *, sign: bool = False) -> str:
    """Format a share as a percentage."""
    return MISSING if value is None else f"{100 * value:{'+' if sign else ''}z.1f}%"


def plain(value: object) -> str:
    """Format a name or a whole number."""
    return MISSING if value is None else str(value)


def ratio_title(ratio: float | None) -> str:
    """Name a pruning ratio."""
    return "No pruning ratio" if ratio is None else f"Pruning ratio {100 * ratio:.10g}%"


def counts_line(counts: Content) -> str:
    """Say how many experiments there are and count."""
    line = f"Experiments: {counts['total']} total, {counts['valid']} valid, {counts['invalid']} invalid"
    reasons = "; ".join(f"{n} {reason}" for reason, n in counts["reasons"].items())
    return line + (f" ({reasons})" if reasons else "")


def by_ratio(content: Content) -> list[tuple[str, Content]]:
    """List the results of each pruning ratio, the headline first, then the others from the largest."""
    if not content["by_ratio"]:
        return []
    headline = content["headline_ratio"]
    others = sorted(content["by_ratio"].items(), key=lambda item: -item[1]["pruning_ratio"])
    first = [(key, one) for key, one in others if one["pruning_ratio"] == headline]
    return first + [(key, one) for key, one in others if one["pruning_ratio"] != headline]


def model_sections(content: Content) -> list[Section]:
    """Make the six sections of one model at one pruning ratio."""
    return [
        _methods(content),
        _settings(content),
        _gradients(content),
        _extreme_layers(content),
        _perplexity(content),
        _best(content),
    ]


def headline(analysis: Content) -> str:
    """Say the result of a model at its headline ratio in a sentence."""
    best, versus = analysis["best"], analysis["best_vs_baseline"]
    if best is None:
        return f"{ratio_title(analysis['headline_ratio'])}: no valid experiment."
    sentence = (
        f"{ratio_title(analysis['headline_ratio'])}: best is {best['experiment']} with mean accuracy "
        f"{fixed(best['acc_mean'])}"
    )
    if versus["reason"]:
        return f"{sentence}; {versus['reason']}."
    kept = f", {percent(versus['acc_kept'])} of the unpruned model's {fixed(analysis['baseline']['acc_mean'])}"
    return sentence + (kept if versus["acc_kept"] is not None else "") + "."


def correlation_strength(r: float) -> str:
    """Put a correlation into words."""
    size = abs(r)
    if size < 0.1:
        return "negligible"
    word = "strong" if size >= 0.7 else "moderate" if size >= 0.5 else "weak"
    return f"{word} {'positive' if r >= 0 else 'negative'}"


def _methods(content: Content) -> Section:
    methods = content["methods"]
    rows = [
        [
            f"{name} (control)" if method["control"] else name,
            *(fixed(method[key]) for key in ("mean", "std", "min", "max")),
            str(method["n"]),
        ]
        for name, method in methods.items()
    ]
    remarks = []
    if content["best"] is not None:
        best, mean = content["best"], content["best_by_mean"]
        remarks.append(f"Best method: {best['method']} (its best experiment reaches {fixed(best['acc_mean'])})")
        remarks.append(f"Best by mean: {mean} ({fixed(methods[mean]['mean'])})")
    if any(method["control"] for method in methods.values()):
        remarks.append("Controls are shown for comparison; they are never the best and enter no other section.")
    table = Table(["Method", "Mean accuracy", "SD", "Min", "Max", "n"], rows, ["Method"])
    return Section("Pruning methods", tables=[table], remarks=remarks, figures=["accuracy_by_method"])


def _settings(content: Content) -> Section:
    tables, remarks = [], []
    for axis, label in (("taylor_seq_len", "Sequence length"), ("taylor_num_samples", "Number of samples")):
        groups = content[axis]
        if not groups:
            remarks.append(f"{label}: no valid experiment has {axis}.")
            continue
        rows = [[value, fixed(one["mean"]), fixed(one["std"]), str(one["n"])] for value, one in groups.items()]
        tables.append(Table([axis, "Mean accuracy", "SD", "n"], rows, []))
        best = max(groups, key=lambda value: groups[value]["mean"])
        if len(groups) > 1:
            remarks.append(f"Best {axis}: {best} (mean {fixed(groups[best]['mean'])})")
    return Section("Calibration settings", tables=tables, remarks=remarks, figures=["accuracy_by_setting"])


def _gradients(content: Content) -> Section:
    correlations = content["gradient_correlations"]
    if not correlations:
        return Section("Gradient metrics and accuracy", ["There are no gradient metrics."])
    rows = [[metric, *_correlation(one)] for metric, one in correlations.items()]
    table = Table(["Metric", "r", "n", "Meaning"], rows, ["Metric", "Meaning"])
    return Section("Gradient metrics and accuracy", ["Pearson correlation with the mean accuracy."], [table])


def _extreme_layers(content: Content) -> Section:
    extreme = content["extreme_layers"]
    rows = [[value, fixed(group["mean"]), str(group["n"])] for value, group in extreme["groups"].items()]
    return Section(
        "Extreme pruning layers and accuracy",
        ["Layers whose MLP lost more than half of its channels.", _correlation_line("count", extreme)],
        [Table(["Layers", "Mean accuracy", "n"], rows, [])] if rows else [],
    )


def _perplexity(content: Content) -> Section:
    one = content["ppl_accuracy"]
    name = f"perplexity of {one['text']}" if one["text"] else "perplexity"
    return Section("Perplexity and accuracy", [_correlation_line(name, one)], figures=["accuracy_perplexity"])


def _best(content: Content) -> Section:
    best, baseline, versus = content["best"], content["baseline"], content["best_vs_baseline"]
    if best is None:
        return Section("Best configuration", ["There is no valid experiment."])
    unpruned = baseline or {"acc_mean": None, "perplexities": {}, "tasks": {}, "n_params": None}
    settings = [
        ["Experiment", best["experiment"]],
        ["Method", best["method"]],
        *([key, plain(best[key])] for key in ("taylor_seq_len", "taylor_num_samples")),
        ["Calibration", plain(best["calibration"])],
        ["Removed parameters", percent(best["removed_param_fraction"])],
        ["Extreme pruning layers", plain(best["extreme_pruning_layers"])],
        ["grad_norm_ratio", fixed(best["grad_norm_ratio"], 2)],
    ]
    results = [["Mean accuracy", fixed(best["acc_mean"]), fixed(unpruned["acc_mean"])]]
    results += [
        [f"Perplexity {text}", fixed(value, 2), fixed(unpruned["perplexities"].get(text), 2)]
        for text, value in best["perplexities"].items()
    ]
    results += [[task, fixed(value), fixed(unpruned["tasks"].get(task))] for task, value in best["tasks"].items()]
    compared = (
        f"Not compared with the unpruned model: {versus['reason']}."
        if versus["reason"]
        else f"Against the unpruned model: accuracy {versus['acc_mean_difference']:+z.4f} "
        f"({percent(versus['acc_kept'])} kept), perplexity x {fixed(versus['ppl_ratio'], 2)}."
    )
    tables = [
        Table(["Setting", "Value"], settings, ["Setting", "Value"]),
        Table(["Result", "Pruned", "Unpruned"], results, ["Result"]),
    ]
    return Section("Best configuration", [compared], tables, figures=["kept_layers"])


def _correlation(one: Content) -> tuple[str, str, str]:
    if one["r"] is None:
        return "undefined", str(one["n"]), one["reason"]
    return fixed(one["r"], 3), str(one["n"]), correlation_strength(one["r"])


def _correlation_line(name: str, one: Content) -> str:
    r, n, meaning = _correlation(one)
    if one["r"] is None:
        return f"Correlation of the {name} with the mean accuracy: undefined ({meaning})."
    return f"Correlation of the {name} with the mean accuracy: r = {r} (n = {n}, {meaning})."
