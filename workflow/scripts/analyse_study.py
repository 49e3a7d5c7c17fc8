"""Compare the best configurations of all models."""

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.analysis.cross_model import analyse_study, protocols_of
from espalier.analysis.evidence import read_draws
from espalier.files import read_json, read_parquet, read_table, write_result
from espalier.jobs import job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, experiments: str, evaluations: str, analyses: list[str], draws: list[str], headline_ratio: float | None,
    summary: Path,
) -> None:  # fmt: skip
    contents = [read_json(path) for path in analyses]
    names = [content["model"] for content in contents]
    found = analyse_study(
        read_table(experiments),
        headline_ratio=headline_ratio,
        analyses=dict(zip(names, contents, strict=True)),
        protocols=protocols_of(read_table(evaluations)),
        draws={name: read_draws(read_parquet(path)) for name, path in zip(names, draws, strict=True)},
    )
    write_result(summary, found)


if __name__ == "__main__":
    with job_log(snakemake.log[0], "analyse study"):
        main(
            experiments=snakemake.input.experiments,
            evaluations=snakemake.input.evaluations,
            analyses=list(snakemake.input.analyses),
            draws=list(snakemake.input.draws),
            headline_ratio=snakemake.params.headline_ratio,
            summary=Path(snakemake.output.summary),
        )
