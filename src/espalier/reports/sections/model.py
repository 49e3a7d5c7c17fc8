"""Sections of the report of one model at one pruning ratio.

The first six sections are those of the reference reports. Certainty, costs, serving, inference and recovery follow.
"""

from __future__ import annotations

from espalier.reports.messages import Words
from espalier.reports.sections.base import MISSING, Content, ReportSection, Table, fixed, interval, percent, plain
from espalier.reports.sections.certainty import certainty_section, costs_section, spread_section
from espalier.reports.sections.inference import inference_sections
from espalier.reports.sections.recovery import recovery_sections
from espalier.reports.sections.serving import deployment_section


def model_sections(words: Words, analysis: Content, content: Content) -> list[ReportSection]:
    """Return the sections of one model at one pruning ratio.

    Args:
        words: Language.
        analysis: Analysis of the model.
        content: Its results at that ratio.
    """
    return [
        _methods(words, content),
        _settings(words, content),
        _gradients(words, content),
        _extreme_layers(words, content),
        _perplexity(words, content),
        _best(words, content),
        certainty_section(words, content),
        spread_section(words, content),
        costs_section(words, analysis, content),
        deployment_section(words, analysis, content),
        *inference_sections(words, analysis, content),
        *recovery_sections(words, content),
    ]


def correlation_words(words: Words, within: Content | None) -> str:
    """Return a correlation within methods in words, and whether the pooled correlation has the opposite sign."""
    if within is None or within["strength"] is None:
        return MISSING if within is None else words.reason(within)
    sign = words("sign.positive" if within["mean"] >= 0 else "sign.negative")
    said = words(f"strength.{within['strength']}", sign=sign)
    return said + (words("sign.differs") if within["sign_differs"] else "")


def _methods(words: Words, content: Content) -> ReportSection:
    methods, means = content["methods"], content["uncertainty"]["methods"]
    rows = [
        [
            words("control", name=name) if method["control"] else name,
            *(fixed(method[key]) for key in ("mean", "std", "min", "max")),
            str(method["n"]),
            interval(words, means.get(name, {}).get("interval")),
        ]
        for name, method in methods.items()
    ]
    remarks = []
    if content["best"] is not None:
        best, mean = content["best"], content["best_by_mean"]
        remarks.append(words("methods.best", method=best["method"], acc=fixed(best["acc_mean"])))
        remarks.append(words("methods.best_by_mean", method=mean, acc=fixed(methods[mean]["mean"])))
    if any(method["control"] for method in methods.values()):
        remarks.append(words("methods.controls"))
    header = [words(code) for code in ("method", "acc_mean", "sd", "min", "max", "n", "ci")]
    return ReportSection(
        words("s.methods"), tables=[Table(header, rows)], remarks=remarks, figures=["accuracy_by_method"]
    )


def _settings(words: Words, content: Content) -> ReportSection:
    tables, remarks = [], []
    for axis in ("taylor_seq_len", "taylor_num_samples"):
        groups = content[axis]
        if not groups:
            remarks.append(words("settings.none", axis=axis))
            continue
        rows = [[value, fixed(one["mean"]), fixed(one["std"]), str(one["n"])] for value, one in groups.items()]
        header = [words(f"settings.column.{axis}"), *(words(code) for code in ("acc_mean", "sd", "n"))]
        tables.append(Table(header, rows, (), words(f"settings.{axis}")))
        best = max(groups, key=lambda value: groups[value]["mean"])
        if len(groups) > 1:
            acc, short = fixed(groups[best]["mean"]), axis.removeprefix("taylor_")
            remarks.append(words("settings.best", axis=axis, short=short, value=best, acc=acc))
    if tables:
        remarks.append(words("settings.nested"))
    return ReportSection(words("s.settings"), tables=tables, remarks=remarks, figures=["accuracy_by_setting"])


def _gradients(words: Words, content: Content) -> ReportSection:
    correlations = content["gradient_correlations"]
    if not correlations:
        return ReportSection(words("s.gradients"), [words("gradients.none")], figures=["gradient_profile"])
    methods = list(next(iter(correlations.values()))["within"]["methods"])
    rows = [
        [
            metric, _r(words, one), str(one["n"]), str(one["n_distinct"]),
            *(_r(words, one["within"]["methods"][name]) for name in methods), fixed(one["within"]["mean"], 3),
            correlation_words(words, one["within"]),
        ]
        for metric, one in correlations.items()
    ]  # fmt: skip
    inside = [words("within.of", method=name) for name in methods]
    header = [*(words(code) for code in ("metric", "r", "n", "distinct")), *inside, words("within"), words("meaning")]
    remarks = [words("gradients.words")]
    for metric, one in correlations.items():
        if one["r"] is None:
            remarks.append("  • " + words("gradients.reason", metric=metric, reason=words.reason(one)))
        else:
            remarks += ["  • " + words.say(message) for message in one["statements"]]
    table = Table(header, rows, (0, len(header) - 1))
    return ReportSection(words("s.gradients"), [words("gradients.about")], [table], remarks, ["gradient_profile"])


def _extreme_layers(words: Words, content: Content) -> ReportSection:
    extreme = content["extreme_layers"]
    rows = [[value, fixed(group["mean"]), str(group["n"])] for value, group in extreme["groups"].items()]
    header = [words(code) for code in ("layers", "acc_mean", "n")]
    return ReportSection(
        words("s.extreme"),
        [words("extreme.about"), words("extreme.r", r=_r_line(words, extreme))],
        [Table(header, rows, (), words("extreme.groups"))] if rows else [],
        [words.say(message) for message in extreme["statements"]] if extreme["r"] is not None else [],
    )


def _perplexity(words: Words, content: Content) -> ReportSection:
    one = content["ppl_accuracy"]
    paragraphs = [words("ppl.r", r=_r_line(words, one))]
    if one["text"]:
        paragraphs.append(words("ppl.text", text=one["text"]))
    tables = []
    if one["within"] and one["within"]["methods"]:
        methods = one["within"]["methods"]
        rows = [[name, _r(words, within), str(within["n"])] for name, within in methods.items()]
        tables = [Table([words("method"), words("r"), words("n")], rows)]
    remarks = [words.say(message) for message in one["statements"]] if one["r"] is not None else []
    return ReportSection(words("s.ppl"), paragraphs, tables, remarks, ["accuracy_perplexity"])


def _best(words: Words, content: Content) -> ReportSection:
    best, baseline, versus = content["best"], content["baseline"], content["best_vs_baseline"]
    if best is None:
        return ReportSection(words("s.best"), [words("no_valid")])
    unpruned = baseline or {"acc_mean": None, "perplexities": {}, "tasks": {}, "n_params": None}
    certain = content["uncertainty"]["experiments"].get(best["experiment"], {})
    settings = [
        [words("experiment"), best["experiment"]],
        [words("best.method"), best["method"]],
        [words("best.acc_mean"), fixed(best["acc_mean"])],
        [words("ci"), interval(words, certain.get("interval"))],
        [words("best.ppl"), fixed(best["ppl"], 2)],
        *([key, plain(best[key])] for key in ("taylor_seq_len", "taylor_num_samples")),
        [words("best.calibration"), plain(best["calibration"])],
        [words("best.removed"), percent(best["removed_param_fraction"])],
        ["grad_norm_ratio", fixed(best["grad_norm_ratio"], 2)],
        [words("best.extreme"), plain(best["extreme_pruning_layers"])],
    ]
    results = [
        [words("ppl.of", text=text), fixed(value, 2), fixed(unpruned["perplexities"].get(text), 2), MISSING]
        for text, value in best["perplexities"].items()
    ]
    stderr = certain.get("task_stderr", {})
    results += [
        [task, fixed(value), fixed(unpruned["tasks"].get(task)), fixed(stderr.get(task))]
        for task, value in best["tasks"].items()
    ]
    header = [words("result"), words("pruned"), words("Unpruned"), words("stderr")]
    tables = [
        Table([words("setting"), words("value")], settings, (0, 1)),
        Table(header, results, caption=words("best.tasks")),
    ]
    ratios = content["results"].get(best["experiment"], {}).get("ppl_ratios", {})
    if any(one["interval"] for one in ratios.values()):
        rows = [[text, fixed(one["ratio"], 3), interval(words, one["interval"], 3)] for text, one in ratios.items()]
        header = [words("best.text"), words("ppl_ratio"), words("ci")]
        tables.append(Table(header, rows, caption=words("best.ppl_ratios")))
    compared = (
        words("best.not_compared", reason=words.reason(versus))
        if versus["reason"]
        else words(
            "best.compared", difference=f"{versus['acc_mean_difference']:+z.4f}", kept=percent(versus["acc_kept"]),
            ratio=fixed(versus["ppl_ratio"], 2),
        )
    )  # fmt: skip
    return ReportSection(words("s.best"), [compared], tables, figures=["task_profile", "kept_layers"])


def _r(words: Words, one: Content) -> str:
    return words("undefined") if one["r"] is None else fixed(one["r"], 3)


def _r_line(words: Words, one: Content) -> str:
    if one["r"] is None:
        return words("r.undefined", reason=words.reason(one))
    return words("r.defined", r=fixed(one["r"]), n=one["n"])
