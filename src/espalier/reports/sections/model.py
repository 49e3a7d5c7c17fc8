"""Sections of the report of one model at one pruning ratio.

The first six sections are those of the reference reports. Certainty, costs, serving, inference and recovery follow.
"""

from __future__ import annotations

from espalier.reports.formatting import MISSING, format_fixed, format_interval, format_percent, format_value
from espalier.reports.messages import Texts
from espalier.reports.sections.answers import differences_section
from espalier.reports.sections.certainty import certainty_section, costs_section, variation_section
from espalier.reports.sections.generation import generation_sections
from espalier.reports.sections.inference import inference_sections
from espalier.reports.sections.introduction import noise_caveat
from espalier.reports.sections.race import label_common_documents, race_sections
from espalier.reports.sections.recovery import recovery_sections
from espalier.reports.sections.serving import serving_section
from espalier.reports.sections.types import Content, ReportSection, Table


def model_sections(texts: Texts, analysis: Content, content: Content) -> list[ReportSection]:
    """Return the sections of one model at one pruning ratio.

    Args:
        texts: Texts in the language of the report.
        analysis: Analysis of the model.
        content: Its results at that ratio.
    """
    compared = content["comparisons"]
    of_all_experiments = [
        _methods_section(texts, content),
        _settings_section(texts, content),
        _gradients_section(texts, content),
        _extreme_layers_section(texts, content),
    ]
    return [
        *(label_common_documents(texts, compared, section) for section in of_all_experiments),
        _perplexity_section(texts, content),
        _best_section(texts, content),
        label_common_documents(texts, compared, differences_section(texts, compared)),
        certainty_section(texts, content),
        label_common_documents(texts, compared, variation_section(texts, content)),
        costs_section(texts, analysis, content),
        serving_section(texts, analysis, content),
        *inference_sections(texts, analysis, content),
        *generation_sections(texts, analysis, content),
        *recovery_sections(texts, content),
        *race_sections(texts, content),
    ]


LARGEST_DIFFERENCE_REMOVED = 0.01
"""Shares of removed parameters that differ by more are pointed out: such methods are not compared at one size."""


def describe_correlation(texts: Texts, within: Content | None) -> str:
    """Return a correlation within methods in words, if a relation is shown."""
    if within is None or within["strength"] is None:
        return MISSING if within is None else texts.reason(within)
    if not within["shown"]:
        return texts("strength.not_shown")
    sign = texts("sign.positive" if within["mean"] >= 0 else "sign.negative")
    return texts(f"strength.{within['strength']}", sign=sign)


def _methods_section(texts: Texts, content: Content) -> ReportSection:
    methods, means = content["methods"], content["uncertainty"]["methods"]
    rows = [
        [
            texts("control", name=name) if method["control"] else name,
            format_fixed(method["mean"]),
            _format_sd(method),
            *(format_fixed(method[key]) for key in ("min", "max")),
            str(method["n"]),
            format_interval(texts, means.get(name, {}).get("interval")),
        ]
        for name, method in methods.items()
    ]
    remarks = []
    if content["best"] is not None:
        best, mean = content["best"], content["best_by_mean"]
        remarks.append(texts("methods.best", method=best["method"], acc=format_fixed(best["acc_mean"])))
        remarks.append(texts("methods.best_by_mean", method=mean, acc=format_fixed(methods[mean]["mean"])))
    if any(method["control"] for method in methods.values()):
        remarks.append(texts("methods.controls"))
    remarks += _achieved_remarks(texts, methods)
    header = [texts(code) for code in ("method", "acc_mean", "sd", "min", "max", "n", "ci")]
    return ReportSection(
        texts("s.methods"), tables=[Table(header, rows)], remarks=remarks, figures=["accuracy_by_method"]
    )


def _format_sd(group: Content) -> str:
    """Return the standard deviation of a group of experiments; a single one has none."""
    return format_fixed(group["std"]) if group["n"] > 1 else MISSING


def _achieved_remarks(texts: Texts, methods: Content) -> list[str]:
    """Return a remark if the shares that methods removed differ by more than a point; none otherwise."""
    achieved = {
        name: method["removed_param_fraction"]
        for name, method in methods.items()
        if method["removed_param_fraction"]["min"] is not None
    }
    lows, highs = ([one[end] for one in achieved.values()] for end in ("min", "max"))
    if not achieved or max(highs) - min(lows) <= LARGEST_DIFFERENCE_REMOVED:
        return []
    shares = [f"{name} {_format_range(one['min'], one['max'])}" for name, one in achieved.items()]
    return [texts("methods.achieved", shares=", ".join(shares))]


def _format_range(low: float, high: float) -> str:
    first, last = format_percent(low), format_percent(high)
    return first if first == last else f"{first} \N{EN DASH} {last}"


def _settings_section(texts: Texts, content: Content) -> ReportSection:
    tables, remarks = [], []
    for axis in ("taylor_seq_len", "taylor_num_samples"):
        groups = content[axis]
        if not groups:
            remarks.append(texts("settings.none", axis=texts(f"axis.{axis}")))
            continue
        rows = [[value, format_fixed(one["mean"]), _format_sd(one), str(one["n"])] for value, one in groups.items()]
        header = [texts(f"settings.column.{axis}"), *(texts(code) for code in ("acc_mean", "sd", "n"))]
        tables.append(Table(header, rows, (), texts(f"settings.{axis}")))
        best = max(groups, key=lambda value: groups[value]["mean"])
        if len(groups) > 1:
            acc, short = format_fixed(groups[best]["mean"]), axis.removeprefix("taylor_")
            remarks.append(texts("settings.best", axis=texts(f"axis.{axis}"), short=short, value=best, acc=acc))
    if tables:
        remarks.append(texts("settings.nested"))
    return ReportSection(texts("s.settings"), tables=tables, remarks=remarks, figures=["accuracy_by_setting"])


def _gradients_section(texts: Texts, content: Content) -> ReportSection:
    correlations = content["gradient_correlations"]
    if not correlations:
        return ReportSection(texts("s.gradients"), [texts("gradients.none")], figures=["gradient_profile"])
    if all(one["r"] is None for one in correlations.values()):
        reason = texts.reason(next(iter(correlations.values())))
        return ReportSection(
            texts("s.gradients"), [texts("gradients.undefined", reason=reason)], figures=["gradient_profile"]
        )
    methods = list(next(iter(correlations.values()))["within"]["methods"])
    rows = [
        [
            metric, _format_r(texts, one), str(one["n"]), str(one["n_distinct"]),
            *(_format_r(texts, one["within"]["methods"][name]) for name in methods),
            format_fixed(one["within"]["mean"], 3), describe_correlation(texts, one["within"]),
        ]
        for metric, one in correlations.items()
    ]  # fmt: skip
    inside = [texts("within.of", method=name) for name in methods]
    header = [*(texts(code) for code in ("metric", "r", "n", "distinct")), *inside, texts("within"), texts("meaning")]
    table = Table(header, rows, (0, len(header) - 1))
    return ReportSection(texts("s.gradients"), [texts("gradients.about")], [table], figures=["gradient_profile"])


def _extreme_layers_section(texts: Texts, content: Content) -> ReportSection:
    extreme = content["extreme_layers"]
    rows = [[value, format_fixed(group["mean"]), str(group["n"])] for value, group in extreme["groups"].items()]
    header = [texts(code) for code in ("layers", "acc_mean", "n")]
    return ReportSection(
        texts("s.extreme"),
        [texts("extreme.about"), texts("extreme.r", r=_describe_r(texts, extreme))],
        [Table(header, rows, (), texts("extreme.groups"))] if rows else [],
        [texts.message(message) for message in extreme["statements"]] if extreme["r"] is not None else [],
    )


def _perplexity_section(texts: Texts, content: Content) -> ReportSection:
    one = content["ppl_accuracy"]
    paragraphs = [texts("ppl.r", r=_describe_r(texts, one))]
    if one["text"]:
        paragraphs.append(texts("ppl.text", text=one["text"]))
    tables = []
    if one["within"] and one["within"]["methods"]:
        methods = one["within"]["methods"]
        rows = [[name, _format_r(texts, within), str(within["n"])] for name, within in methods.items()]
        tables = [Table([texts("method"), texts("r"), texts("n")], rows)]
    remarks = [texts.message(message) for message in one["statements"]] if one["r"] is not None else []
    return ReportSection(texts("s.ppl"), paragraphs, tables, remarks, ["accuracy_perplexity"])


def _best_section(texts: Texts, content: Content) -> ReportSection:
    best, baseline, versus = content["best"], content["baseline"], content["best_vs_baseline"]
    if best is None:
        return ReportSection(texts("s.best"), [texts("no_valid")])
    unpruned = baseline or {"acc_mean": None, "perplexities": {}, "tasks": {}, "n_params": None}
    certain = content["uncertainty"]["experiments"].get(best["experiment"], {})
    settings = [
        [texts("experiment"), best["experiment"]],
        [texts("best.method"), best["method"]],
        [texts("best.acc_mean"), format_fixed(best["acc_mean"])],
        [texts("ci"), format_interval(texts, certain.get("interval"))],
        [texts("best.ppl"), format_fixed(best["ppl"], 2)],
        *([texts(f"best.{key}"), format_value(best[key])] for key in ("taylor_seq_len", "taylor_num_samples")),
        [texts("best.calibration"), format_value(best["calibration"])],
        [texts("best.removed"), format_percent(best["removed_param_fraction"])],
        ["grad_norm_ratio", format_fixed(best["grad_norm_ratio"], 2)],
        [texts("best.extreme"), format_value(best["extreme_pruning_layers"])],
    ]
    results = [
        [
            texts("ppl.of", text=text),
            format_fixed(value, 2),
            format_fixed(unpruned["perplexities"].get(text), 2),
            MISSING,
        ]
        for text, value in best["perplexities"].items()
    ]
    stderr = certain.get("task_stderr", {})
    results += [
        [task, format_fixed(value), format_fixed(unpruned["tasks"].get(task)), format_fixed(stderr.get(task))]
        for task, value in best["tasks"].items()
    ]
    header = [texts("result"), texts("pruned"), texts("Unpruned"), texts("stderr")]
    tables = [
        Table([texts("setting"), texts("value")], settings, (0, 1)),
        Table(header, results, caption=texts("best.tasks")),
    ]
    ratios = content["results"].get(best["experiment"], {}).get("ppl_ratios", {})
    if any(one["interval"] for one in ratios.values()):
        rows = [
            [text, format_fixed(one["ratio"], 3), format_interval(texts, one["interval"], 3)]
            for text, one in ratios.items()
        ]
        header = [texts("best.text"), texts("ppl_ratio"), texts("ci")]
        tables.append(Table(header, rows, caption=texts("best.ppl_ratios")))
    compared = (
        texts("best.not_compared", reason=texts.reason(versus))
        if versus["reason"]
        else texts(
            "best.compared", difference=f"{versus['acc_mean_difference']:+z.4f}",
            kept=format_percent(versus["acc_kept"]), ratio=format_fixed(versus["ppl_ratio"], 2),
        )
    )  # fmt: skip
    compared = " ".join([compared, *noise_caveat(texts, content)])
    return ReportSection(texts("s.best"), [compared], tables, figures=["task_profile", "kept_layers"])


def _format_r(texts: Texts, one: Content) -> str:
    return texts("undefined") if one["r"] is None else format_fixed(one["r"], 3)


def _describe_r(texts: Texts, one: Content) -> str:
    if one["r"] is None:
        return texts("r.undefined", reason=texts.reason(one))
    return texts("r.defined", r=format_fixed(one["r"]), n=one["n"])
