"""Write the report that compares all models: tables, text, page, LaTeX, and the figures of the headline ratio."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.analysis.best_configs import best_configs_table, cross_model_comparison
from espalier.files import atomic_file, read_json, write_result
from espalier.jobs.log import workflow_job
from espalier.reports.figures.cross import cross_figures
from espalier.reports.html import cross_model_html
from espalier.reports.latex import TABLES
from espalier.reports.layout import write_text
from espalier.reports.markdown import best_configs_markdown
from espalier.reports.messages import Texts
from espalier.reports.text import cross_model_text, write_figures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, summary: str, language: str, table: Path, comparison: Path, text: Path, html: Path, markdown: Path,
    tex: dict[str, Path],
    figures: dict[str, Path],
) -> None:  # fmt: skip
    content: dict[str, Any] = read_json(summary)
    with atomic_file(table) as temporary:
        best_configs_table(content).to_csv(temporary, index=False)
    write_result(comparison, cross_model_comparison(content))
    write_text(text, cross_model_text(content, language))
    write_text(html, cross_model_html(content, language))
    write_text(markdown, best_configs_markdown(content, language))
    for name, path in tex.items():
        write_text(path, TABLES[name](content))
    write_figures(cross_figures(Texts(), content), figures)


if __name__ == "__main__":
    with workflow_job(snakemake, "report_cross_model", "report cross_model"):
        main(
            summary=snakemake.input.summary,
            language=snakemake.params.language,
            table=Path(snakemake.output.table),
            comparison=Path(snakemake.output.comparison),
            text=Path(snakemake.output.text),
            html=Path(snakemake.output.html),
            markdown=Path(snakemake.output.markdown),
            tex={Path(path).stem: Path(path) for path in snakemake.output.tex},
            figures={Path(path).name: Path(path) for path in [*snakemake.output.svg, *snakemake.output.pdf]},
        )
