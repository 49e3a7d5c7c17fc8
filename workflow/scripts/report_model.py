"""Write the report of one model: text, page, and the figures of the headline ratio as SVG and PDF."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.files import read_json, read_table
from espalier.jobs.log import workflow_job
from espalier.reports.chart_rows import experiment_chart_rows, layer_chart_rows
from espalier.reports.figures.layers import best_kept_layers, gradient_profile_figure
from espalier.reports.figures.model import ratio_figures
from espalier.reports.html import model_html
from espalier.reports.layout import write_text
from espalier.reports.messages import Texts
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
    rows = {key: experiment_chart_rows(table, content, one) for key, one in content["by_ratio"].items()}
    kept = layer_chart_rows(read_table(layers), content["model"])
    write_text(text, model_text(content, language))
    write_text(html, model_html(content, rows, kept, language))
    texts = Texts()  # English labels: for other languages, a PDF may need fonts that are not installed
    drawn = ratio_figures(texts, content, experiment_chart_rows(table, content, content))
    write_figures([*drawn, best_kept_layers(texts, content, kept), gradient_profile_figure(texts, content)], figures)


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
