"""Compare the best configurations of all models."""

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.analysis.cross_model import analyse_study
from espalier.files import read_parquet, write_json
from espalier.jobs import job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, experiments: str, headline_ratio: float | None, summary: Path) -> None:
    write_json(summary, analyse_study(read_parquet(experiments).to_pandas(), headline_ratio=headline_ratio))


if __name__ == "__main__":
    with job_log(snakemake.log[0], "analyse study"):
        main(
            experiments=snakemake.input.experiments,
            headline_ratio=snakemake.params.headline_ratio,
            summary=Path(snakemake.output.summary),
        )
