"""The table of the best configurations in Markdown, as in the guide of the reference scripts."""

from __future__ import annotations

from typing import Any

from espalier.reports.formatting import format_fixed, format_percent, format_value
from espalier.reports.messages import Texts
from espalier.reports.sections.answers import percent_interval
from espalier.reports.sections.introduction import by_kept, by_ratio, ratio_title
from espalier.reports.sections.types import Content

# Characters that would end a cell, or be read as markup.
_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\|*_`<>[]"})


def best_configs_markdown(summary: dict[str, Any], language: str = "en") -> str:
    """Return one Markdown table for each pruning ratio, ordered by what each model keeps, with its 95% interval.

    Args:
        summary: Cross-model analysis of the study.
        language: Language code, `en` or `zh`.
    """
    texts = Texts(language)
    codes = ("x.model", "x.kind", "x.best_method", "x.best_acc", "kept", "kept_ci", "x.best_ppl", "seq_len", "samples")
    parts = []
    for _, content in by_ratio(summary):
        rows = [[cell.translate(_MARKUP) for cell in _cells(texts, row)] for row in by_kept(content["best_configs"])]
        header = [texts(code) for code in codes]
        lines = [header, ["---"] * len(header), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"{ratio_title(texts, content['pruning_ratio'])}\n\n{table}\n")
    return "\n".join(parts) if parts else texts("no_valid") + "\n"


def _cells(texts: Texts, row: Content) -> list[str]:
    return [
        row["model"], texts(f"kind.{row['kind']}"), row["method"], format_fixed(row["acc_mean"]),
        format_percent(row["acc_kept"]), percent_interval(texts, row["acc_kept_interval"]),
        format_fixed(row["ppl"], 2), format_value(row["taylor_seq_len"]), format_value(row["taylor_num_samples"]),
    ]  # fmt: skip
