"""Run one gradient pass over the calibration sequences of a model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

import pandas as pd

from espalier.files import write_table
from espalier.jobs.calibration import CalibrationJob, importance_tables
from espalier.jobs.log import workflow_job
from espalier.tables import GradientStatistics, Importance

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, job: CalibrationJob, gradients: str, importance: str) -> None:
    tables = importance_tables(job, "taylor")
    write_table(importance, Importance.validate(pd.DataFrame(tables.importance)))
    write_table(gradients, GradientStatistics.validate(pd.DataFrame(tables.gradients)))


if __name__ == "__main__":
    with workflow_job(
        snakemake, "collect_gradients", f"gradients {snakemake.wildcards.model} seq{snakemake.wildcards.seq_len}"
    ):
        main(
            job=CalibrationJob.from_snakemake(snakemake),
            gradients=snakemake.output.gradients,
            importance=snakemake.output.importance,
        )
