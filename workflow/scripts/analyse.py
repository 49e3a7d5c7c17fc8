"""Analyse the experiments of one model."""

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.analysis.model import analyse_model
from espalier.files import read_parquet, write_json
from espalier.jobs import job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, experiments: str, model: str, headline_ratio: float | None, analysis: Path) -> None:
    table = read_parquet(experiments).to_pandas()
    write_json(analysis, analyse_model(table, model, headline_ratio=headline_ratio))


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"analyse {snakemake.wildcards.model}"):
        main(
            experiments=snakemake.input.experiments,
            model=snakemake.wildcards.model,
            headline_ratio=snakemake.params.headline_ratio,
            analysis=Path(snakemake.output.analysis),
        )
