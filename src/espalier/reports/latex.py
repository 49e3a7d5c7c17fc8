r"""Tables for papers in LaTeX. They are always in English and need booktabs (`\usepackage{booktabs}`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from espalier.reports.formatting import format_fixed, format_percent, format_value
from espalier.reports.sections.introduction import by_ratio
from espalier.reports.sections.types import Content


def best_configs_latex(summary: dict[str, Any]) -> str:
    """Return the LaTeX table of the best configuration of each model at each pruning ratio."""
    rows = [
        {
            "Model": row["model"], "Kind": row["kind"], "Ratio": _ratio_text(row), "Method": row["method"],
            "Acc.": format_fixed(row["acc_mean"]), "95% interval": _interval_text(row["acc_mean_interval"]),
            "Unpruned": format_fixed(row["baseline_acc_mean"]), "Kept": format_percent(row["acc_kept"]),
            "PPL": format_fixed(row["ppl"], 2), "Seq. len.": format_value(row["taylor_seq_len"]),
            "Samples": format_value(row["taylor_num_samples"]),
        }
        for _, content in by_ratio(summary)
        for row in content["best_configs"]
    ]  # fmt: skip
    columns = [
        "Model", "Kind", "Ratio", "Method", "Acc.", "95% interval", "Unpruned", "Kept", "PPL", "Seq. len.", "Samples",
    ]  # fmt: skip
    caption = "Best configuration of each model: mean zero-shot accuracy with its interval over documents, perplexity."
    return _latex_table(pd.DataFrame(rows, columns=columns), "llrlrcrrrrr", caption, "tab:best-configs")


def base_vs_instruct_latex(summary: dict[str, Any]) -> str:
    """Return the LaTeX table of base and instruct models, by family and ratio.

    It compares the best experiments, and the means over the settings that both models have.
    """
    rows = [
        _base_vs_instruct_row(one, content) for _, content in by_ratio(summary) for one in content["base_vs_instruct"]
    ]
    columns = [
        "Family", "Ratio", "Base", "Instruct", "Relative change", "Settings", "Difference", "95% interval",
    ]  # fmt: skip
    caption = (
        "Mean zero-shot accuracy of the best pruned base and instruct models, and the mean difference"
        " over the settings that both have."
    )
    return _latex_table(pd.DataFrame(rows, columns=columns), "lrrrrrrc", caption, "tab:base-vs-instruct")


def costs_latex(summary: dict[str, Any]) -> str:
    """Return the LaTeX table of accuracy kept and costs of the best configurations, relative to the unpruned models."""
    rows = [
        {
            "Model": row["model"], "Ratio": _ratio_text(row), "Experiment": row["experiment"],
            "Acc. kept": format_percent(row["acc_kept"]), "95% interval": _percent_interval(row["acc_kept_interval"]),
            "PPL ratio": format_fixed(row["ppl_ratio"], 2), **_relative_costs(row),
        }
        for _, content in by_ratio(summary)
        for row in content["best_configs"]
    ]  # fmt: skip
    columns = [
        "Model", "Ratio", "Experiment", "Acc. kept", "95% interval", "PPL ratio", "Parameters", "KV cache", "FLOPs",
    ]  # fmt: skip
    caption = "Best configurations compared with the unpruned models; KV cache and FLOPs per token."
    return _latex_table(pd.DataFrame(rows, columns=columns), "lrlrcrrrr", caption, "tab:costs")


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "best_configs": best_configs_latex,
    "base_vs_instruct": base_vs_instruct_latex,
    "costs": costs_latex,
}
"""Functions that write the tables, by file name without suffix."""


def _base_vs_instruct_row(one: Content, content: Content) -> dict[str, str]:
    common = one["common_settings"] or {"n": None, "difference": None, "interval": None}
    difference = None if common["difference"] is None else _with_minus_sign(f"{common['difference']:+z.4f}")
    change = _with_minus_sign(format_percent(one["relative_change"], sign=True, digits=2))
    return {
        "Family": one["family"], "Ratio": _ratio_text(content), "Base": format_fixed(one["base_acc"]),
        "Instruct": format_fixed(one["instruct_acc"]), "Relative change": change, "Settings": format_value(common["n"]),
        "Difference": format_value(difference), "95% interval": _interval_text(common["interval"]),
    }  # fmt: skip


def _relative_costs(row: Content) -> dict[str, str]:
    names = {"Parameters": "n_params", "KV cache": "kv_cache_bytes_per_token", "FLOPs": "flops_per_token"}
    return {title: format_percent((row["costs_relative"] or {}).get(key)) for title, key in names.items()}


def _interval_text(ends: list[float] | None) -> str:
    return (
        format_fixed(None) if ends is None else _with_minus_sign(f"[{format_fixed(ends[0])}, {format_fixed(ends[1])}]")
    )


def _with_minus_sign(number: str) -> str:
    """Replace hyphens by minus signs, which `_latex_table` writes in math mode."""
    return number.replace("-", "\N{MINUS SIGN}")


def _percent_interval(ends: list[float] | None) -> str:
    return format_fixed(None) if ends is None else f"[{format_percent(ends[0])}, {format_percent(ends[1])}]"


def _ratio_text(content: Content) -> str:
    return f"{100 * content['pruning_ratio']:.10g}%"


def _latex_table(frame: pd.DataFrame, column_format: str, caption: str, label: str) -> str:
    styler = frame.astype("str").style.hide(axis="index").format(escape="latex").format_index(axis=1, escape="latex")
    text = styler.to_latex(
        hrules=True, column_format=column_format, caption=caption, label=label, position_float="centering"
    )
    return text.replace("\N{EN DASH}", "--").replace("\N{MINUS SIGN}", "$-$")
