"""Write the index of all reports and files of a study, and the page of all experiments."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.files import read_json, read_table, write_text
from espalier.jobs.log import workflow_job
from espalier.jobs.provenance import collect_provenance, read_drawn
from espalier.reports.chart_rows import experiment_chart_rows
from espalier.reports.site import Site
from espalier.reports.study_pages import experiments_html, index_html

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, summary: str, analyses: list[str], experiments: str, with_structures: list[str], config: Mapping[str, Any],
    language: str, index: Path, experiments_page: Path,
) -> None:  # fmt: skip
    content: dict[str, Any] = read_json(summary)
    models: list[dict[str, Any]] = [read_json(path) for path in analyses]
    table = read_table(experiments)
    rows = [
        {key: experiment_chart_rows(table, model, one) for key, one in model["by_ratio"].items()} for model in models
    ]
    names = [model["model"] for model in models]
    provenance = collect_provenance(table, config, names)
    drawn = read_drawn(index.parent / "cross_model/figures", ["accuracy_size"])
    site = Site(names, with_structures, "", "index.html")
    write_text(index, index_html(content, models, language, drawn=drawn, site=site, provenance=provenance))
    site = Site(names, with_structures, "", "experiments.html")
    page = experiments_html(content["study"], models, rows, language, site=site, provenance=provenance)
    write_text(experiments_page, page)


if __name__ == "__main__":
    with workflow_job(snakemake, "report_index", "report index"):
        main(
            summary=snakemake.input.summary,
            analyses=list(snakemake.input.analyses),
            experiments=snakemake.input.experiments,
            with_structures=list(snakemake.params.with_structures),
            config=snakemake.config,
            language=snakemake.params.language,
            index=Path(snakemake.output.index),
            experiments_page=Path(snakemake.output.experiments),
        )
