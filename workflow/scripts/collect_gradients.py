"""Run one gradient pass over the calibration sequences of a model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

import pandas as pd

from espalier.files import write_table
from espalier.jobs.calibration import CalibrationJob, collect
from espalier.jobs.log import workflow_job
from espalier.tables import GradientStatistics, Importance

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, job: CalibrationJob, gradients: str, importance: str) -> None:
    collected = collect(job, "taylor")
    write_table(importance, Importance.validate(pd.DataFrame(collected.importance)))
    write_table(gradients, GradientStatistics.validate(pd.DataFrame(collected.statistics)))


if __name__ == "__main__":
    with workflow_job(
        snakemake, "collect_gradients", f"gradients {snakemake.wildcards.model} seq{snakemake.wildcards.seq_len}"
    ):
        main(
            job=CalibrationJob.of(snakemake),
            gradients=snakemake.output.gradients,
            importance=snakemake.output.importance,
        )
