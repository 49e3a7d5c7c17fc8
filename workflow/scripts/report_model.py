"""Write the report of one model: text, HTML, and the figures of the headline ratio."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.files import read_json, read_parquet
from espalier.jobs import job_log
from espalier.reports.figures import model_figures
from espalier.reports.html import model_html
from espalier.reports.text import model_text, write_text

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, analysis: str, experiments: str, layers: str, text: Path, html: Path, figures: dict[str, Path]) -> None:
    content: dict[str, Any] = read_json(analysis)
    rows, plans = read_parquet(experiments).to_pandas(), read_parquet(layers).to_pandas()
    by_ratio = {key: model_figures(rows, plans, content["model"], one) for key, one in content["by_ratio"].items()}
    write_text(text, model_text(content))
    write_text(html, model_html(content, by_ratio))
    for figure in model_figures(rows, plans, content["model"], content):
        write_text(figures[figure.name], figure.svg)


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"report {snakemake.wildcards.model}"):
        main(
            analysis=snakemake.input.analysis,
            experiments=snakemake.input.experiments,
            layers=snakemake.input.layers,
            text=Path(snakemake.output.text),
            html=Path(snakemake.output.html),
            figures={
                "accuracy_by_method": Path(snakemake.output.accuracy_by_method),
                "accuracy_by_setting": Path(snakemake.output.accuracy_by_setting),
                "accuracy_perplexity": Path(snakemake.output.accuracy_perplexity),
                "kept_layers": Path(snakemake.output.kept_layers),
            },
        )
