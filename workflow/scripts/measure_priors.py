"""Measure the priors of every layer and block of a model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

import pandas as pd

from espalier.files import write_table
from espalier.jobs.calibration import CalibrationJob, priors_table
from espalier.jobs.log import workflow_job
from espalier.tables import PriorTable

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, job: CalibrationJob, priors: str) -> None:
    write_table(priors, PriorTable.validate(pd.DataFrame(priors_table(job))))


if __name__ == "__main__":
    with workflow_job(
        snakemake, "measure_priors", f"priors {snakemake.wildcards.model} seq{snakemake.wildcards.seq_len}"
    ):
        main(job=CalibrationJob.from_snakemake(snakemake), priors=snakemake.output[0])
