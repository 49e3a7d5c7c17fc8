"""Measure the priors of every layer and block of a model."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from espalier.calibration_job import priors_of_job
from espalier.files import write_table
from espalier.jobs import job_log
from espalier.tables import PriorTable

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, job: dict[str, Any], priors: str) -> None:
    write_table(priors, PriorTable.validate(pd.DataFrame(priors_of_job(**job))))


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"priors {snakemake.wildcards.model} seq{snakemake.wildcards.seq_len}"):
        main(
            job={
                "manifest": snakemake.input.manifest,
                "text": snakemake.input.text,
                "sequences": snakemake.params.sequences,
                "counts": snakemake.params.counts,
                "dtype": snakemake.params.dtype,
                "resources": dict(snakemake.resources.items()),
                "threads": snakemake.threads,
            },
            priors=snakemake.output[0],
        )
