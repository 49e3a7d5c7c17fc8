"""Measure importances by a criterion other than taylor that reads calibration text."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

import pandas as pd

from espalier.files import write_table
from espalier.jobs.calibration import CalibrationJob, importance_tables
from espalier.jobs.log import workflow_job
from espalier.tables import Importance

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, job: CalibrationJob, criterion: str, importance: str) -> None:
    tables = importance_tables(job, criterion)
    write_table(importance, Importance.validate(pd.DataFrame(tables.importance)))


if __name__ == "__main__":
    wildcards = snakemake.wildcards
    with workflow_job(
        snakemake, "measure_importance", f"{wildcards.text_criterion} {wildcards.model} seq{wildcards.seq_len}"
    ):
        main(
            job=CalibrationJob.from_snakemake(snakemake),
            criterion=wildcards.text_criterion,
            importance=snakemake.output[0],
        )
