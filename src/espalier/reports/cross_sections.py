"""What the cross-model report says at one pruning ratio, section by section."""

from __future__ import annotations

from typing import Any

from espalier.reports.sections import Content, Section, Table, fixed, percent, plain, ratio_title


def cross_sections(content: Content) -> list[Section]:
    """Make the sections that compare all models at one pruning ratio."""
    return [
        _best_configs(content),
        _base_vs_instruct(content),
        _methods(content),
        _settings(content),
        _architectures(content),
    ]


def cross_headline(summary: Content) -> str:
    """Say the result of the study at its headline ratio in a sentence."""
    best, n = summary["overall_best"], len(summary["best_configs"])
    title = ratio_title(summary["headline_ratio"])
    if best is None:
        why = "no valid experiment" if not n else "the models were not evaluated alike, so none is called the best"
        return f"{title}: {why}."
    return (
        f"{title}: highest mean accuracy of {n} model{'s' if n != 1 else ''} is {best['model']} with {best['method']} "
        f"({fixed(best['acc_mean'])})."
    )


def _best_configs(content: Content) -> Section:
    ordered = sorted(content["best_configs"], key=lambda row: (-row["acc_mean"], row["model"]))
    rows = [
        [
            row["model"], row["kind"], row["method"], fixed(row["acc_mean"]), fixed(row["baseline_acc_mean"]),
            percent(row["acc_kept"]), fixed(row["ppl"], 2), plain(row["taylor_seq_len"]),
            plain(row["taylor_num_samples"]), str(row["n_valid"]),
        ]
        for row in ordered
    ]  # fmt: skip
    header = ["Model", "Kind", "Method", "Accuracy", "Unpruned", "Kept", "Perplexity", "Seq. length", "Samples", "n"]
    remarks = [
        f"{row['model']}: not compared with its unpruned model: {row['reason']}." for row in ordered if row["reason"]
    ]
    remarks += [f"{name}: no valid experiment." for name in content["models_without_best"]]
    texts = sorted({row["ppl_text"] for row in ordered if row["ppl_text"]})
    about = "Best experiment of each model; n is the number of valid experiments it was chosen from (without controls)."
    if texts:
        about += f" Perplexity of {', '.join(texts)}."
    tables = [Table(header, rows, ["Model", "Kind", "Method"])] if rows else []
    return Section("Best configuration of each model", [about], tables, remarks, ["best_vs_baseline"])


def _base_vs_instruct(content: Content) -> Section:
    rows, remarks = [], []
    for one in content["base_vs_instruct"]:
        change = percent(one["relative_change"], sign=True)
        rows.append([one["family"], fixed(one["base_acc"]), fixed(one["instruct_acc"]), change])
        if one["reason"]:
            remarks.append(f"{one['family']}: {one['reason']}.")
    tables = [Table(["Family", "Base", "Instruct", "Relative change"], rows, ["Family"])] if rows else []
    return Section(
        "Base and instruct models", ["Accuracy of the best experiment."], tables, remarks, ["base_vs_instruct"]
    )


def _methods(content: Content) -> Section:
    distribution = content["method_distribution"]
    kinds = ["overall", *(kind for kind in ("base", "instruct") if any(_counts(distribution[kind])))]
    rows = [[method, *(_share(distribution[kind].get(method)) for kind in kinds)] for method in distribution["overall"]]
    table = Table(
        ["Method", *("All models" if kind == "overall" else kind.capitalize() for kind in kinds)], rows, ["Method"]
    )
    return Section("How often each method is the best", tables=[table] if rows else [])


def _settings(content: Content) -> Section:
    tables, remarks = [], []
    for axis, values in content["parameter_distribution"].items():
        rows = [[value, ", ".join(one["models"]), _share(one)] for value, one in values.items()]
        if rows:
            tables.append(Table([axis, "Models", "Share"], rows, ["Models"]))
        else:
            remarks.append(f"No best experiment has {axis}.")
    return Section("Calibration settings of the best", tables=tables, remarks=remarks)


def _architectures(content: Content) -> Section:
    families = content["architecture_comparison"]
    ordered = sorted(families.items(), key=lambda item: -(item[1]["acc_mean"] or 0))
    rows = [[family, fixed(one["acc_mean"]), fixed(one["ppl"], 2), ", ".join(one["models"])] for family, one in ordered]
    remarks = [f"{family}: {one['reason']}." for family, one in ordered if one["reason"]]
    header = ["Family", "Mean accuracy", "Mean perplexity", "Models"]
    about = "Means over the best experiment of each model of the family."
    return Section("Architectures", [about], [Table(header, rows, ["Family", "Models"])] if rows else [], remarks)


def _counts(shares: dict[str, Any]) -> list[int]:
    return [one["count"] for one in shares.values()]


def _share(one: Content | None) -> str:
    return "0" if not one else f"{one['count']} ({percent(one['share'])})"
