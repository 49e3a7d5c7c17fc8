"""Compare the best configurations of all models."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.analysis.analysed_experiments import analysed_experiments
from espalier.analysis.cross_model import analyse_study, protocols_of, skipped_of
from espalier.analysis.evidence import read_draws
from espalier.files import read_json, read_parquet, read_table, write_result, write_table
from espalier.jobs.log import workflow_job
from espalier.tables import AnalysedExperiments, column_metadata

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.analyse_study")


def main(
    *, experiments: str, evaluations: str, analyses: list[str], draws: list[str], headline_ratio: float | None,
    unchecked: list[dict[str, str]], failed: list[dict[str, str]], summary: Path, table: Path,
) -> None:  # fmt: skip
    contents = [read_json(path) for path in analyses]
    names = [content["model"] for content in contents]
    frame, by_model = read_table(experiments), dict(zip(names, contents, strict=True))
    evaluated = read_table(evaluations)
    found = analyse_study(
        frame,
        headline_ratio=headline_ratio,
        analyses=by_model,
        protocols=protocols_of(evaluated),
        skipped=skipped_of(evaluated),
        draws={name: read_draws(read_parquet(path)) for name, path in zip(names, draws, strict=True)},
    )
    found |= {"models_not_checked": unchecked, "failed_jobs": failed}
    for one in unchecked:
        logger.warning("model %r could not be checked and has no report: %s", one["model"], one["reason"])
    for one in failed:
        logger.warning("%s failed: %s", one["job"], one["reason"])
    write_result(summary, found)
    analysed = analysed_experiments(frame, by_model)
    write_table(table, analysed, column_metadata(AnalysedExperiments, analysed))


if __name__ == "__main__":
    with workflow_job(snakemake, "analyse_study", "analyse study"):
        main(
            experiments=snakemake.input.experiments,
            evaluations=snakemake.input.evaluations,
            analyses=list(snakemake.input.analyses),
            draws=list(snakemake.input.draws),
            headline_ratio=snakemake.params.headline_ratio,
            unchecked=snakemake.params.unchecked,
            failed=snakemake.params.failed,
            summary=Path(snakemake.output.summary),
            table=Path(snakemake.output.experiments),
        )
