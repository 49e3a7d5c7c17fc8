"""Write the report that compares all models: tables, text, page and LaTeX."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.analysis.best_configs import best_configs_table, cross_model_comparison
from espalier.analysis.literature import StudySettings, with_literature
from espalier.config.literature import read_literature
from espalier.files import atomic_file, read_json, read_table, write_result, write_text
from espalier.jobs.log import workflow_job
from espalier.jobs.provenance import collect_provenance, read_drawn
from espalier.reports.html import cross_model_html
from espalier.reports.latex import TABLES
from espalier.reports.markdown import best_configs_markdown
from espalier.reports.site import Site
from espalier.reports.text import cross_model_text

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, summary: str, analyses: list[str], experiments: str, drawn: str, literature: list[str],
    with_structures: list[str], settings: StudySettings, config: Mapping[str, Any], language: str, table: Path,
    comparison: Path, text: Path, html: Path, markdown: Path, tex: dict[str, Path],
) -> None:  # fmt: skip
    content: dict[str, Any] = read_json(summary)
    models: list[dict[str, Any]] = [read_json(path) for path in analyses]
    names = [model["model"] for model in models]
    with atomic_file(table) as temporary:
        best_configs_table(content).to_csv(temporary, index=False)
    write_result(comparison, cross_model_comparison(content))
    for published in literature:
        content = with_literature(content, read_literature(published), settings)
    write_text(text, cross_model_text(content, language))
    write_text(markdown, best_configs_markdown(content, language))
    for name, path in tex.items():
        write_text(path, TABLES[name](content))
    page = cross_model_html(
        content,
        language,
        analyses=models,
        drawn=read_drawn(html.parent / "figures", read_json(drawn)["svg_sha256"]),
        site=Site(names, with_structures, "../", "cross_model/report.html"),
        provenance=collect_provenance(read_table(experiments), config, names),
    )
    write_text(html, page)


if __name__ == "__main__":
    with workflow_job(snakemake, "report_cross_model", "report cross_model"):
        main(
            summary=snakemake.input.summary,
            analyses=list(snakemake.input.analyses),
            experiments=snakemake.input.experiments,
            drawn=snakemake.input.drawn,
            literature=list(snakemake.input.literature),
            with_structures=list(snakemake.params.with_structures),
            settings=StudySettings(**snakemake.params.literature),
            config=snakemake.config,
            language=snakemake.params.language,
            table=Path(snakemake.output.table),
            comparison=Path(snakemake.output.comparison),
            text=Path(snakemake.output.text),
            html=Path(snakemake.output.html),
            markdown=Path(snakemake.output.markdown),
            tex={Path(path).stem: Path(path) for path in snakemake.output.tex},
        )
