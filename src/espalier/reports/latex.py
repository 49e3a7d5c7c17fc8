r"""Tables for papers, as LaTeX with booktabs (`\usepackage{booktabs}`)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from espalier.reports.sections import Content, by_ratio, fixed, percent, plain


def best_configs_latex(summary: dict[str, Any]) -> str:
    """Write the best configuration of each model at each pruning ratio."""
    rows = [
        {
            "Model": row["model"], "Kind": row["kind"], "Ratio": _ratio(row), "Method": row["method"],
            "Acc.": fixed(row["acc_mean"]), "Unpruned": fixed(row["baseline_acc_mean"]),
            "Kept": percent(row["acc_kept"]), "PPL": fixed(row["ppl"], 2), "Seq. len.": plain(row["taylor_seq_len"]),
            "Samples": plain(row["taylor_num_samples"]),
        }
        for _, content in by_ratio(summary)
        for row in content["best_configs"]
    ]  # fmt: skip
    columns = ["Model", "Kind", "Ratio", "Method", "Acc.", "Unpruned", "Kept", "PPL", "Seq. len.", "Samples"]
    caption = "Best configuration of each model: mean zero-shot accuracy, and perplexity."
    return _table(pd.DataFrame(rows, columns=columns), "llrlrrrrrr", caption, "tab:best-configs")


def base_vs_instruct_latex(summary: dict[str, Any]) -> str:
    """Write the accuracies of the best pruned base and instruct model of each family at each pruning ratio."""
    rows = [
        {
            "Family": one["family"], "Ratio": _ratio(content), "Base": fixed(one["base_acc"]),
            "Instruct": fixed(one["instruct_acc"]), "Relative change": percent(one["relative_change"], sign=True),
        }
        for _, content in by_ratio(summary)
        for one in content["base_vs_instruct"]
    ]  # fmt: skip
    columns = ["Family", "Ratio", "Base", "Instruct", "Relative change"]
    caption = "Mean zero-shot accuracy of the best pruned base and instruct models."
    return _table(pd.DataFrame(rows, columns=columns), "lrrrr", caption, "tab:base-vs-instruct")


def _ratio(content: Content) -> str:
    return f"{100 * content['pruning_ratio']:.10g}%"


def _table(frame: pd.DataFrame, column_format: str, caption: str, label: str) -> str:
    styler = frame.astype("str").style.hide(axis="index").format(escape="latex").format_index(axis=1, escape="latex")
    text = styler.to_latex(
        hrules=True, column_format=column_format, caption=caption, label=label, position_float="centering"
    )
    return text.replace("\N{EN DASH}", "--")
