"""Draw all figures of one model: SVG, PDF, and the table behind each figure as CSV."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.files import atomic_folder, read_json, read_table, write_json
from espalier.jobs.log import workflow_job
from espalier.reports.chart_rows import experiment_chart_rows, layer_chart_rows, prior_profiles
from espalier.reports.figures.files import write_figures
from espalier.reports.figures.model import model_figures
from espalier.reports.messages import Texts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, analysis: str, experiments: str, layers: str, priors: list[tuple[str, int, int, str]], style: str | None,
    folder: Path, drawn: Path,
) -> None:  # fmt: skip
    content: dict[str, Any] = read_json(analysis)
    table = read_table(experiments)
    rows = {key: experiment_chart_rows(table, content, one) for key, one in content["by_ratio"].items()}
    kept = layer_chart_rows(read_table(layers), content["model"])
    passes = prior_profiles([(name, length, n, read_table(path)) for name, length, n, path in priors])
    with atomic_folder(folder) as temporary:
        hashes = write_figures(model_figures(Texts(), content, rows, kept, passes), temporary, style)
    write_json(drawn, {"svg_sha256": hashes})


if __name__ == "__main__":
    with workflow_job(snakemake, "draw_model", f"draw {snakemake.wildcards.model}"):
        main(
            analysis=snakemake.input.analysis,
            experiments=snakemake.input.experiments,
            layers=snakemake.input.layers,
            priors=list(snakemake.params.priors),
            style=next(iter(snakemake.input.style), None),
            folder=Path(snakemake.output.figures),
            drawn=Path(snakemake.output.drawn),
        )
