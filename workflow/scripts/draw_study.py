"""Draw all figures that compare the models: SVG, PDF, and the table behind each figure as CSV."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.files import atomic_folder, read_json, write_json
from espalier.jobs.log import workflow_job
from espalier.reports.figures.cross import study_figures
from espalier.reports.figures.files import write_figures
from espalier.reports.messages import Texts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, summary: str, analyses: list[str], style: str | None, folder: Path, drawn: Path) -> None:
    figures = study_figures(Texts(), read_json(summary), [read_json(path) for path in analyses])
    with atomic_folder(folder) as temporary:
        hashes = write_figures(figures, temporary, style)
    write_json(drawn, {"svg_sha256": hashes})


if __name__ == "__main__":
    with workflow_job(snakemake, "draw_study", "draw cross_model"):
        main(
            summary=snakemake.input.summary,
            analyses=list(snakemake.input.analyses),
            style=next(iter(snakemake.input.style), None),
            folder=Path(snakemake.output.figures),
            drawn=Path(snakemake.output.drawn),
        )
