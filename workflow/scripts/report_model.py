"""Write the report of one model: text and page."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from espalier.files import read_json, read_table, write_text
from espalier.jobs.log import workflow_job
from espalier.jobs.provenance import collect_provenance, read_drawn
from espalier.reports.chart_rows import experiment_chart_rows, layer_chart_rows, prior_profiles
from espalier.reports.html import model_html
from espalier.reports.sections.recovery import with_recovery
from espalier.reports.site import Site
from espalier.reports.text import model_text

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, analysis: str, recovery: list[str], experiments: str, layers: str, priors: list[tuple[str, int, int, str]],
    drawn: str, measured: list[str], models: list[str], with_structures: list[str], config: Mapping[str, Any],
    language: str, text: Path, html: Path,
) -> None:  # fmt: skip
    content: dict[str, Any] = with_recovery(read_json(analysis), [read_json(path) for path in recovery])
    content |= {"inference": [read_json(path) for path in measured]}
    table = read_table(experiments)
    model = content["model"]
    rows = {key: experiment_chart_rows(table, content, one) for key, one in content["by_ratio"].items()}
    write_text(text, model_text(content, language))
    page = model_html(
        content,
        rows,
        layer_chart_rows(read_table(layers), model),
        language,
        priors=prior_profiles([(name, length, n, read_table(path)) for name, length, n, path in priors]),
        drawn=read_drawn(html.parent / "figures", read_json(drawn)["svg_sha256"]),
        site=Site(models, with_structures, "../", f"{quote(model)}/report.html"),
        provenance=collect_provenance(table, config, [model]),
    )
    write_text(html, page)


if __name__ == "__main__":
    with workflow_job(snakemake, "report_model", f"report {snakemake.wildcards.model}"):
        main(
            analysis=snakemake.input.analysis,
            recovery=list(snakemake.input.recovery),
            experiments=snakemake.input.experiments,
            layers=snakemake.input.layers,
            priors=list(snakemake.params.priors),
            drawn=snakemake.input.drawn,
            measured=list(snakemake.params.measured),
            models=list(snakemake.params.models),
            with_structures=list(snakemake.params.with_structures),
            config=snakemake.config,
            language=snakemake.params.language,
            text=Path(snakemake.output.text),
            html=Path(snakemake.output.html),
        )
