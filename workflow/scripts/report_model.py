"""Write the report of one model: text, page, and the figures of the headline ratio as SVG and PDF."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.files import read_json, read_table
from espalier.jobs.log import workflow_job
from espalier.reports.figures.depth import gradient_profile, kept_layers
from espalier.reports.figures.model import ratio_figures
from espalier.reports.html import model_html
from espalier.reports.layout import write_text
from espalier.reports.messages import Words
from espalier.reports.rows import experiment_rows, layer_rows
from espalier.reports.sections.recovery import with_recovery
from espalier.reports.text import model_text, write_figures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, analysis: str, recovery: list[str], experiments: str, layers: str, measured: list[str], language: str,
    text: Path, html: Path, figures: dict[str, Path],
) -> None:  # fmt: skip
    content: dict[str, Any] = with_recovery(read_json(analysis), [read_json(path) for path in recovery])
    content |= {"inference": [read_json(path) for path in measured]}
    table = read_table(experiments)
    rows = {key: experiment_rows(table, content, one) for key, one in content["by_ratio"].items()}
    kept = layer_rows(read_table(layers), content["model"])
    write_text(text, model_text(content, language))
    write_text(html, model_html(content, rows, kept, language))
    words = Words()  # English labels: for other languages, a PDF may need fonts that are not installed
    drawn = ratio_figures(words, content, experiment_rows(table, content, content))
    write_figures([*drawn, kept_layers(words, content, kept), gradient_profile(words, content)], figures)


if __name__ == "__main__":
    with workflow_job(snakemake, "report_model", f"report {snakemake.wildcards.model}"):
        main(
            analysis=snakemake.input.analysis,
            recovery=list(snakemake.input.recovery),
            experiments=snakemake.input.experiments,
            layers=snakemake.input.layers,
            measured=list(snakemake.params.measured),
            language=snakemake.params.language,
            text=Path(snakemake.output.text),
            html=Path(snakemake.output.html),
            figures={Path(path).name: Path(path) for path in [*snakemake.output.svg, *snakemake.output.pdf]},
        )
