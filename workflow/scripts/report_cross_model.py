"""Write the report that compares all models: table, text, HTML, LaTeX, and the figures of the headline ratio."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.analysis.cross_model import best_configs_table, cross_model_comparison
from espalier.files import read_json, whole_file, write_json
from espalier.jobs import job_log
from espalier.reports.figures import cross_model_figures
from espalier.reports.html import cross_model_html
from espalier.reports.latex import base_vs_instruct_latex, best_configs_latex
from espalier.reports.text import cross_model_text, write_text

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, summary: str, table: Path, comparison: Path, text: Path, html: Path, tex: dict[str, Path], svg: dict[str, Path]
) -> None:
    content: dict[str, Any] = read_json(summary)
    with whole_file(table) as temporary:
        best_configs_table(content).to_csv(temporary, index=False)
    write_json(comparison, cross_model_comparison(content))
    write_text(text, cross_model_text(content))
    by_ratio = {key: cross_model_figures(one) for key, one in content["by_ratio"].items()}
    write_text(html, cross_model_html(content, by_ratio))
    write_text(tex["best_configs"], best_configs_latex(content))
    write_text(tex["base_vs_instruct"], base_vs_instruct_latex(content))
    for figure in cross_model_figures(content):
        write_text(svg[figure.name], figure.svg)


if __name__ == "__main__":
    with job_log(snakemake.log[0], "report cross_model"):
        main(
            summary=snakemake.input.summary,
            table=Path(snakemake.output.table),
            comparison=Path(snakemake.output.comparison),
            text=Path(snakemake.output.text),
            html=Path(snakemake.output.html),
            tex={
                "best_configs": Path(snakemake.output.best_configs_tex),
                "base_vs_instruct": Path(snakemake.output.base_vs_instruct_tex),
            },
            svg={
                "best_vs_baseline": Path(snakemake.output.best_vs_baseline),
                "base_vs_instruct": Path(snakemake.output.base_vs_instruct),
            },
        )
