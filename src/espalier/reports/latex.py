r"""Tables for papers in LaTeX, one for each pruning ratio. They are always in English.

They need booktabs and graphicx (`\usepackage{booktabs,graphicx}`). In the text width of `article` they stand at their
own size; a narrower column, or long names, scale them down to the width of the column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from espalier.naming import ratio_key
from espalier.reports.formatting import format_fixed, format_percent, format_value
from espalier.reports.sections.introduction import by_ratio
from espalier.reports.sections.types import Content


def best_configs_latex(summary: dict[str, Any]) -> str:
    """Return the LaTeX tables of the best configuration of each model, by what it keeps."""
    columns = ["Model", "Method", "Length", "Samples", "Acc.", "Kept", "95\\% interval", "PPL"]
    caption = (
        "Best configuration of each model at {ratio} pruning: calibration sequence length and samples, mean"
        " accuracy, accuracy kept of the unpruned model with its interval over documents, perplexity."
    )
    return _tables(summary, "best_configs", _best_config_row, columns, "llrrrrcr", caption, "tab:best-configs")


def base_vs_instruct_latex(summary: dict[str, Any]) -> str:
    """Return the LaTeX tables of base and instruct models by family.

    They compare the best experiments, and the means over the settings that both models have.
    """
    columns = ["Family", "Base", "Instruct", "Change", "Settings", "Difference", "95\\% interval"]
    caption = (
        "Mean accuracy of the best base and instruct models at {ratio} pruning, and the mean difference over"
        " the settings that both have."
    )
    return _tables(
        summary, "base_vs_instruct", _base_vs_instruct_row, columns, "lrrrrrc", caption, "tab:base-vs-instruct"
    )


def costs_latex(summary: dict[str, Any]) -> str:
    """Return the LaTeX tables of accuracy kept and costs of the best configurations, relative to unpruned models."""
    columns = ["Model", "Method", "Kept", "95\\% interval", "PPL", "Params", "KV", "FLOPs"]
    caption = (
        "Best configurations at {ratio} pruning compared with the unpruned models: accuracy kept with its interval,"
        " ratio of the perplexities, and the shares left of parameters, KV cache and FLOPs per token."
    )
    return _tables(summary, "best_configs", _costs_row, columns, "llrcrrrr", caption, "tab:costs")


def _best_config_row(row: Content) -> list[str]:
    return [
        row["model"], row["method"], format_value(row["taylor_seq_len"]), format_value(row["taylor_num_samples"]),
        format_fixed(row["acc_mean"], 3), format_percent(row["acc_kept"]), _percent_interval(row["acc_kept_interval"]),
        format_fixed(row["ppl"], 2),
    ]  # fmt: skip


def _costs_row(row: Content) -> list[str]:
    shares = row["costs_relative"] or {}
    keys = ("n_params", "kv_cache_bytes_per_token", "flops_per_token")
    return [
        row["model"], row["method"], format_percent(row["acc_kept"]), _percent_interval(row["acc_kept_interval"]),
        format_fixed(row["ppl_ratio"], 2), *(format_percent(shares.get(key), digits=0) for key in keys),
    ]  # fmt: skip


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "best_configs": best_configs_latex,
    "base_vs_instruct": base_vs_instruct_latex,
    "costs": costs_latex,
}
"""Functions that write the tables, by file name without suffix."""


def _base_vs_instruct_row(one: Content) -> list[str]:
    common = one["common_settings"] or {"n": None, "difference": None, "interval": None}
    difference = None if common["difference"] is None else _with_minus_sign(f"{common['difference']:+z.3f}")
    change = _with_minus_sign(format_percent(one["relative_change"], sign=True, digits=1))
    return [
        one["family"], format_fixed(one["base_acc"], 3), format_fixed(one["instruct_acc"], 3), change,
        format_value(common["n"]), format_value(difference), _interval_text(common["interval"]),
    ]  # fmt: skip


def _interval_text(ends: list[float] | None) -> str:
    if ends is None:
        return format_fixed(None)
    return _with_minus_sign(f"[{format_fixed(ends[0], 3)}, {format_fixed(ends[1], 3)}]")


def _with_minus_sign(number: str) -> str:
    """Replace hyphens by minus signs, which `_latex_table` writes in math mode."""
    return number.replace("-", "\N{MINUS SIGN}")


def _percent_interval(ends: list[float] | None) -> str:
    return format_fixed(None) if ends is None else f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def _tables(
    summary: Content, key: str, row_of: Callable[[Content], list[str]], columns: Sequence[str], column_format: str,
    caption: str, label: str,
) -> str:  # fmt: skip
    """Return one table for each pruning ratio that has rows; the headline ratio comes first and has the plain label."""
    tables = []
    for _, content in by_ratio(summary):
        rows = [row_of(row) for row in _ordered(content[key])]
        ratio = f"{100 * content['pruning_ratio']:.10g}\\%"
        is_headline = content["pruning_ratio"] == summary["headline_ratio"]
        own_label = label if is_headline else f"{label}-{ratio_key(content['pruning_ratio'])}"
        if rows:
            tables.append(_latex_table(rows, columns, column_format, caption.format(ratio=ratio), own_label))
    return "\n".join(tables) if tables else "% There are no results.\n"


def _ordered(rows: Sequence[Content]) -> list[Content]:
    """Return the best configurations by what they keep; other rows as they are."""

    def order(row: Content) -> tuple[bool, float, str]:
        kept = row["acc_kept"]
        return kept is None, 0.0 if kept is None else -kept, row["model"]

    return sorted(rows, key=order) if rows and "acc_kept" in rows[0] else list(rows)


def _latex_table(
    rows: Sequence[Sequence[str]], columns: Sequence[str], column_format: str, caption: str, label: str
) -> str:
    frame = pd.DataFrame(list(rows), columns=list(columns))
    styler = frame.astype("str").style.hide(axis="index").format(escape="latex")
    text = styler.to_latex(
        hrules=True, column_format=column_format, caption=caption, label=label, position_float="centering"
    )
    before, rest = text.split("\\begin{tabular}", maxsplit=1)
    tabular, after = rest.split("\\end{tabular}", maxsplit=1)
    # The size and the column separation give the table its width; \resizebox acts only if that is too much.
    scaled = (
        "\\small\\setlength{\\tabcolsep}{3pt}%\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{tabular}\\end{{tabular}}}}"
    )
    return (before + scaled + after).replace("\N{EN DASH}", "--").replace("\N{MINUS SIGN}", "$-$")
