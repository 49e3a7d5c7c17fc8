"""Sections of the cross-model report at one pruning ratio, its headline and its overview."""

from __future__ import annotations

from typing import Any

from espalier.reports.formatting import (
    MISSING,
    format_cost,
    format_fixed,
    format_interval,
    format_percent,
    format_value,
)
from espalier.reports.messages import Texts
from espalier.reports.sections.answers import (
    differences_of_models,
    differences_section,
    group_title,
    kept_matrix,
    method_title,
    opposite_models,
    percent_interval,
    ranking_section,
    sentences,
)
from espalier.reports.sections.introduction import (
    at_ratio,
    by_kept,
    by_ratio,
    headline_statements,
    ratio_title,
    split_statements,
)
from espalier.reports.sections.literature import literature_sections
from espalier.reports.sections.race import label_common_documents
from espalier.reports.sections.types import Content, Overview, ReportSection, Table


def cross_sections(texts: Texts, content: Content) -> list[ReportSection]:
    """Return the sections that compare all models at one pruning ratio."""
    return [
        _best_configs_section(texts, content),
        _base_vs_instruct_section(texts, content),
        _method_distribution_section(texts, content),
        _parameter_distribution_section(texts, content),
        _architectures_section(texts, content),
        _preferences_section(texts, content),
        label_common_documents(
            texts,
            content["comparisons"],
            differences_section(
                texts, content["comparisons"], differences_of_models(texts, content["comparisons_of_models"])
            ),
        ),
        ranking_section(texts, content["comparisons"]),
        _costs_section(texts, content),
        *literature_sections(texts, content),
    ]


def cross_headline(texts: Texts, summary: Content) -> str:
    """Return what each method keeps over all models at the headline ratio, and the main differences.

    A study with one model has the main differences of that model.
    """
    title, compared, n = (
        ratio_title(texts, summary["headline_ratio"]),
        summary["comparisons"],
        len(summary["best_configs"]),
    )
    if not compared["kept"]:
        of_models = list(summary["comparisons_of_models"].values())
        of_model = headline_statements(of_models[0]) if len(of_models) == 1 else []
        return " ".join([_best_headline(texts, summary, title, n), *(texts.message(message) for message in of_model)])
    ordered = sorted(compared["kept"].items(), key=lambda item: (-item[1]["mean"], item[0]))
    means = [
        texts("answers.mean", name=method_title(texts, name, one), mean=format_percent(one["mean"]))
        for name, one in ordered
    ]
    values = {"ratio": title, "n": len(compared["models"]), "means": texts("list.separator").join(means)}
    own = [
        texts("cross.of_model", model=model, text=texts.message(message))
        for model, one in summary["comparisons_of_models"].items()
        for message in one["statements"].get("controls", [])
        if message["code"].startswith("control_")
    ]
    main = [texts.message(message) for message in headline_statements(compared)]
    means_line = texts(f"headline.means.{compared['measure']}", **values)
    return " ".join([means_line, *main, *_highest_model(texts, compared), *own])


def _highest_model(texts: Texts, compared: Content) -> list[str]:
    """Name the models that are told apart from the first of the ranking, or say that no two are told apart."""
    for message in sentences(compared["statements"], "models"):
        if message["code"].startswith("models_all_open"):
            return [texts.message(message)]
        if message["code"].startswith("model_better"):
            lower = texts("list.separator").join(one["values"]["model"] for one in message["values"]["lower"])
            return [texts(f"headline.models.{compared['measure']}", model=message["values"]["model"], models=lower)]
    return []


def cross_notes(texts: Texts, summary: Content) -> list[str]:
    """Return the notes of the report on all models, and one line for each failed job."""
    return [texts("note.cross"), texts("note.error"), *failed_jobs(texts, summary)]


def failed_jobs(texts: Texts, summary: Content) -> list[str]:
    """Return one line with the reason for each failed job that does not belong to a single experiment."""
    return [texts("cross.failed", **one) for one in summary.get("failed_jobs", [])]


def cross_overview(texts: Texts, content: Content) -> Overview:
    """Return the overview of all models. Models that could not be checked come first among the open questions."""
    supported = [texts.message(message) for message in content["turning"]]
    open_questions = [texts("cross.not_checked", **one) for one in content.get("models_not_checked", [])]
    tables: list[Table] = []
    if content["comparisons"]["why"] and len(content["best_configs"]) > 1:
        open_questions.append(texts("differences.none", reason=texts.reason(content["comparisons"])))
    for _, one in by_ratio(content):
        title = ratio_title(texts, one["pruning_ratio"])
        found = _differences_found(texts, one)
        between = split_statements(texts, sentences(one["comparisons"]["statements"], "models"))
        opposite = opposite_models(texts, one["comparisons"]["differences"], one["comparisons_of_models"])
        supported += [at_ratio(texts, title, text) for text in [*found.supported, *opposite, *between.supported]]
        open_questions += [at_ratio(texts, title, text) for text in [*found.open_questions, *between.open_questions]]
        tables += kept_matrix(texts, one, title)
    for _, one in by_ratio(content):
        title = ratio_title(texts, one["pruning_ratio"])
        for pair in one["base_vs_instruct"]:
            statements = split_statements(texts, (pair["common_settings"] or {}).get("statements", []))
            said = [
                [at_ratio(texts, title, texts("cross.kinds", family=pair["family"], text=text)) for text in found]
                for found in (statements.supported, statements.open_questions)
            ]
            supported += said[0]
            open_questions += said[1]
    return Overview(supported, open_questions, tables)


def _differences_found(texts: Texts, content: Content) -> Overview:
    """Return the statements over all models at one ratio. If there are none, return those of each model."""
    kinds = ("controls", "methods", "settings")
    if statements := sentences(content["comparisons"]["statements"], *kinds):
        return split_statements(texts, statements)
    of_models = content["comparisons_of_models"]
    supported, open_questions = [], []
    for model, own in of_models.items():
        found = split_statements(texts, sentences(own["statements"], *kinds))
        said = [
            [text if len(of_models) == 1 else texts("cross.of_model", model=model, text=text) for text in part]
            for part in (found.supported, found.open_questions)
        ]
        supported += said[0]
        open_questions += said[1]
    return Overview(supported, open_questions)


def _best_headline(texts: Texts, summary: Content, title: str, n: int) -> str:
    """Return the highest accuracy of the study, for results of which it is not known what they keep."""
    best = summary["overall_best"]
    if best is None:
        return texts("headline.not_alike" if n else "headline.none", ratio=title)
    code = "headline.cross_one" if n == 1 else "headline.cross"
    return texts(code, ratio=title, n=n, model=best["model"], method=best["method"], acc=format_fixed(best["acc_mean"]))


def _preferences_section(texts: Texts, content: Content) -> ReportSection:
    """Return what base and instruct models and the models of each family prefer."""
    groups = content["comparisons"].get("groups", [])
    said = {
        group_title(texts, group): sentences(group["statements"], "controls", "methods", "settings") for group in groups
    }
    lines = [
        texts("cross.group", group=title, text=" ".join(texts.message(message) for message in messages))
        for title, messages in said.items()
        if messages
    ]
    return ReportSection(texts("x.preferences"), lines or [texts("x.preferences.none")])


def _best_configs_section(texts: Texts, content: Content) -> ReportSection:
    ordered = by_kept(content["best_configs"])
    rows = [
        [
            row["model"], texts(f"kind.{row['kind']}"), row["method"], format_fixed(row["acc_mean"]),
            format_fixed(row["baseline_acc_mean"]), format_percent(row["acc_kept"]),
            percent_interval(texts, row["acc_kept_interval"]), format_fixed(row["ppl"], 2),
            format_value(row["taylor_seq_len"]), format_value(row["taylor_num_samples"]), _in_set(texts, row),
        ]
        for row in ordered
    ]  # fmt: skip
    codes = (
        "x.model", "x.kind", "x.best_method", "x.best_acc", "Unpruned", "kept", "kept_ci", "x.best_ppl", "seq_len",
        "samples", "x.n_in_set",
    )  # fmt: skip
    remarks = [
        texts("x.best.not_compared", model=row["model"], reason=texts.reason(row)) for row in ordered if row["reason"]
    ]
    remarks += [texts("x.best.none", model=name) for name in content["models_without_best"]]
    if best := content["overall_best"]:
        values = {"acc": format_fixed(best["acc_mean"]), "ppl": format_fixed(best["ppl"], 2), "method": best["method"]}
        name = best["model"]
        remarks.append(texts("x.overall", model=name, model_upper=name.upper(), **values))
    ppl_texts = sorted({row["ppl_text"] for row in ordered if row["ppl_text"]})
    about = texts("x.best.about") + (" " + texts("x.best.texts", texts=", ".join(ppl_texts)) if ppl_texts else "")
    tables = [Table([texts(code) for code in codes], rows, (0, 1, 2))] if rows else []
    return ReportSection(texts("x.best"), [about], tables, remarks, ["best_vs_baseline"])


def _base_vs_instruct_section(texts: Texts, content: Content) -> ReportSection:
    rows, common_rows, remarks = [], [], []
    for one in content["base_vs_instruct"]:
        change = format_percent(one["relative_change"], sign=True, digits=2)
        rows.append([one["family"], format_fixed(one["base_acc"]), format_fixed(one["instruct_acc"]), change])
        if one["reason"]:
            remarks.append(texts("x.reason", name=one["family"], reason=texts.reason(one)))
        if (common := one["common_settings"]) and common["n"]:
            change = format_percent(common["relative_change"], sign=True, digits=2)
            common_rows.append(
                [
                    one["family"], str(common["n"]), format_fixed(common["base"]), format_fixed(common["instruct"]),
                    f"{common['difference']:+z.4f}", format_interval(texts, common["interval"]), change,
                    str(common["n_instruct_higher"]),
                ]
            )  # fmt: skip
    best_header = [texts(code) for code in ("x.family", "x.base", "x.instruct", "x.change")]
    header = [
        texts(code)
        for code in (
            "x.family", "x.n_settings", "x.base", "x.instruct", "x.difference", "ci", "x.change", "x.n_higher",
        )
    ]  # fmt: skip
    tables = [Table(best_header, rows, caption=texts("x.kinds.best"))] if rows else []
    tables += [Table(header, common_rows, caption=texts("x.kinds.common"))] if common_rows else []
    return ReportSection(texts("x.kinds"), [], tables, remarks, ["base_vs_instruct"])


def _method_distribution_section(texts: Texts, content: Content) -> ReportSection:
    distribution = content["method_distribution"]
    kinds = ["overall", *(kind for kind in ("base", "instruct") if any(_counts(distribution[kind])))]
    rows = [[method, *(_share(distribution[kind].get(method)) for kind in kinds)] for method in distribution["overall"]]
    columns = [texts("x.all_models") if kind == "overall" else texts(f"kind.{kind}").capitalize() for kind in kinds]
    return ReportSection(texts("x.methods"), tables=[Table([texts("method"), *columns], rows)] if rows else [])


def _parameter_distribution_section(texts: Texts, content: Content) -> ReportSection:
    tables, remarks = [], []
    for axis, values in content["parameter_distribution"].items():
        rows = [[value, ", ".join(one["models"]), _share(one)] for value, one in values.items()]
        if rows:
            tables.append(Table([texts(f"settings.column.{axis}"), texts("x.models"), texts("share")], rows, (1,)))
        else:
            remarks.append(texts("x.settings.none", axis=texts(f"axis.{axis}")))
    return ReportSection(texts("x.settings"), tables=tables, remarks=remarks)


def _architectures_section(texts: Texts, content: Content) -> ReportSection:
    families = content["architecture_comparison"]
    ordered = sorted(families.items(), key=lambda item: -(item[1]["acc_mean"] or 0))
    rows = [
        [family, format_fixed(one["acc_mean"]), format_fixed(one["ppl"], 2), ", ".join(one["models"])]
        for family, one in ordered
    ]
    remarks = [texts("x.reason", name=name, reason=texts.reason(one)) for name, one in ordered if one["reason"]]
    header = [texts(code) for code in ("x.family", "x.family_acc", "x.family_ppl", "x.models")]
    tables = [Table(header, rows, (0, 3))] if rows else []
    return ReportSection(texts("x.families"), [texts("x.families.about")], tables, remarks)


def _costs_section(texts: Texts, content: Content) -> ReportSection:
    keys = ("n_params", "kv_cache_bytes_per_token", "flops_per_token")
    rows = [
        [
            row["model"], row["experiment"], format_percent(row["acc_kept"]),
            percent_interval(texts, row["acc_kept_interval"]), format_fixed(row["ppl_ratio"], 2),
            *(format_cost(row[key], (row["costs_relative"] or {}).get(key)) for key in keys),
        ]
        for row in by_kept(content["best_configs"])
    ]  # fmt: skip
    codes = ("x.model", "experiment", "kept", "kept_ci", "ppl_ratio", "params", "kv", "flops")
    tables = [Table([texts(code) for code in codes], rows, (0, 1))] if rows else []
    return ReportSection(texts("x.costs"), [texts("x.costs.about")], tables)


def _in_set(texts: Texts, row: Content) -> str:
    if row["n_in_simultaneous_set"] is None:
        return MISSING
    return texts("x.of", members=row["n_in_simultaneous_set"], n=row["n_valid"])


def _counts(shares: dict[str, Any]) -> list[int]:
    return [one["count"] for one in shares.values()]


def _share(one: Content | None) -> str:
    return "0" if not one else f"{one['count']} ({format_percent(one['share'])})"
