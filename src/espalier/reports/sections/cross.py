"""Sections of the cross-model report at one pruning ratio, its headline and its overview."""

from __future__ import annotations

from typing import Any

from espalier.reports.messages import Words
from espalier.reports.sections.base import (
    Content,
    Overview,
    ReportSection,
    Table,
    fixed,
    interval,
    percent,
    plain,
    ratio_title,
    split_statements,
    with_relative,
)


def cross_sections(words: Words, content: Content) -> list[ReportSection]:
    """Return the sections that compare all models at one pruning ratio."""
    return [
        _best_configs(words, content),
        _base_vs_instruct(words, content),
        _methods(words, content),
        _settings(words, content),
        _architectures(words, content),
        _costs(words, content),
    ]


def cross_headline(words: Words, summary: Content) -> str:
    """Return one sentence with the result of the study at its headline ratio."""
    best, n = summary["overall_best"], len(summary["best_configs"])
    title = ratio_title(words, summary["headline_ratio"])
    if best is None:
        return words("headline.not_alike" if n else "headline.none", ratio=title)
    code = "headline.cross_one" if n == 1 else "headline.cross"
    return words(code, ratio=title, n=n, model=best["model"], method=best["method"], acc=fixed(best["acc_mean"]))


def failed_jobs(words: Words, summary: Content) -> list[str]:
    """Return one line with the reason for each failed job that does not belong to a single experiment."""
    return [words("cross.failed", **one) for one in summary.get("failed_jobs", [])]


def cross_overview(words: Words, content: Content) -> Overview:
    """Return the overview of all models. Models that could not be checked come first among the open questions."""
    supported: list[str] = []
    left = [words("cross.not_checked", **one) for one in content.get("models_not_checked", [])]
    for row in content["best_configs"]:
        if row["n_in_set"] is None or row["n_valid"] < 2:
            continue
        if row["n_in_set"] == 1:
            supported.append(words("cross.alone", model=row["model"], others=row["n_valid"] - 1))
        else:
            corrected = fixed(row["acc_mean_corrected"])
            members = {"members": row["n_in_set"], "n": row["n_valid"], "corrected": corrected}
            left.append(words("cross.set", model=row["model"], **members))
    for one in content["base_vs_instruct"]:
        if one["common_settings"]:
            said = split_statements(words, one["common_settings"]["statements"])
            supported += [words("cross.kinds", family=one["family"], text=text) for text in said.supported]
            left += [words("cross.kinds", family=one["family"], text=text) for text in said.open]
    return Overview(supported, left)


def _best_configs(words: Words, content: Content) -> ReportSection:
    ordered = _ordered(content)
    rows = [
        [
            row["model"], words(f"kind.{row['kind']}"), row["method"], fixed(row["acc_mean"]),
            interval(words, row["acc_mean_interval"]), fixed(row["baseline_acc_mean"]), percent(row["acc_kept"]),
            fixed(row["ppl"], 2), plain(row["taylor_seq_len"]), plain(row["taylor_num_samples"]), str(row["n_valid"]),
            plain(row["n_in_set"]), fixed(row["acc_mean_corrected"]),
        ]
        for row in ordered
    ]  # fmt: skip
    codes = (
        "x.model", "x.kind", "x.best_method", "x.best_acc", "ci", "Unpruned", "kept", "x.best_ppl", "seq_len",
        "samples", "x.n_valid", "x.n_in_set", "x.corrected",
    )  # fmt: skip
    remarks = [
        words("x.best.not_compared", model=row["model"], reason=words.reason(row)) for row in ordered if row["reason"]
    ]
    remarks += [words("x.best.none", model=name) for name in content["models_without_best"]]
    if best := content["overall_best"]:
        values = {"acc": fixed(best["acc_mean"]), "ppl": fixed(best["ppl"], 2), "method": best["method"]}
        name = best["model"]
        remarks.append(words("x.overall", model=name, model_upper=name.upper(), **values))
    texts = sorted({row["ppl_text"] for row in ordered if row["ppl_text"]})
    about = words("x.best.about") + (" " + words("x.best.texts", texts=", ".join(texts)) if texts else "")
    tables = [Table([words(code) for code in codes], rows, (0, 1, 2))] if rows else []
    return ReportSection(words("x.best"), [about], tables, remarks, ["best_vs_baseline"])


def _base_vs_instruct(words: Words, content: Content) -> ReportSection:
    rows, common, remarks = [], [], []
    for one in content["base_vs_instruct"]:
        change = percent(one["relative_change"], sign=True, digits=2)
        rows.append([one["family"], fixed(one["base_acc"]), fixed(one["instruct_acc"]), change])
        if one["reason"]:
            remarks.append(words("x.reason", name=one["family"], reason=words.reason(one)))
        if (of := one["common_settings"]) and of["n"]:
            change = percent(of["relative_change"], sign=True, digits=2)
            common.append(
                [
                    one["family"], str(of["n"]), fixed(of["base"]), fixed(of["instruct"]), f"{of['difference']:+z.4f}",
                    interval(words, of["interval"]), change, str(of["n_instruct_higher"]),
                ]
            )  # fmt: skip
    best = [words(code) for code in ("x.family", "x.base", "x.instruct", "x.change")]
    header = [
        words(code)
        for code in (
            "x.family", "x.n_settings", "x.base", "x.instruct", "x.difference", "ci", "x.change", "x.n_higher",
        )
    ]  # fmt: skip
    tables = [Table(best, rows, caption=words("x.kinds.best"))] if rows else []
    tables += [Table(header, common, caption=words("x.kinds.common"))] if common else []
    return ReportSection(words("x.kinds"), [], tables, remarks, ["base_vs_instruct"])


def _methods(words: Words, content: Content) -> ReportSection:
    distribution = content["method_distribution"]
    kinds = ["overall", *(kind for kind in ("base", "instruct") if any(_counts(distribution[kind])))]
    rows = [[method, *(_share(distribution[kind].get(method)) for kind in kinds)] for method in distribution["overall"]]
    columns = [words("x.all_models") if kind == "overall" else words(f"kind.{kind}").capitalize() for kind in kinds]
    return ReportSection(words("x.methods"), tables=[Table([words("method"), *columns], rows)] if rows else [])


def _settings(words: Words, content: Content) -> ReportSection:
    tables, remarks = [], []
    for axis, values in content["parameter_distribution"].items():
        rows = [[value, ", ".join(one["models"]), _share(one)] for value, one in values.items()]
        if rows:
            tables.append(Table([axis, words("x.models"), words("share")], rows, (1,)))
        else:
            remarks.append(words("x.settings.none", axis=axis))
    return ReportSection(words("x.settings"), tables=tables, remarks=remarks)


def _architectures(words: Words, content: Content) -> ReportSection:
    families = content["architecture_comparison"]
    ordered = sorted(families.items(), key=lambda item: -(item[1]["acc_mean"] or 0))
    rows = [[family, fixed(one["acc_mean"]), fixed(one["ppl"], 2), ", ".join(one["models"])] for family, one in ordered]
    remarks = [words("x.reason", name=name, reason=words.reason(one)) for name, one in ordered if one["reason"]]
    header = [words(code) for code in ("x.family", "x.family_acc", "x.family_ppl", "x.models")]
    tables = [Table(header, rows, (0, 3))] if rows else []
    return ReportSection(words("x.families"), [words("x.families.about")], tables, remarks)


def _costs(words: Words, content: Content) -> ReportSection:
    keys = ("n_params", "kv_cache_bytes_per_token", "flops_per_token")
    rows = [
        [
            row["model"], row["experiment"], percent(row["acc_kept"]), interval(words, row["acc_kept_interval"], 3),
            fixed(row["ppl_ratio"], 2),
            *(with_relative(row[key], (row["costs_relative"] or {}).get(key)) for key in keys),
        ]
        for row in _ordered(content)
    ]  # fmt: skip
    codes = ("x.model", "experiment", "kept", "kept_ci", "ppl_ratio", "params", "kv", "flops")
    tables = [Table([words(code) for code in codes], rows, (0, 1))] if rows else []
    return ReportSection(words("x.costs"), [words("x.costs.about")], tables)


def _ordered(content: Content) -> list[dict[str, Any]]:
    return sorted(content["best_configs"], key=lambda row: (-row["acc_mean"], row["model"]))


def _counts(shares: dict[str, Any]) -> list[int]:
    return [one["count"] for one in shares.values()]


def _share(one: Content | None) -> str:
    return "0" if not one else f"{one['count']} ({percent(one['share'])})"
