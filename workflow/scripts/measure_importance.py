"""Measure importances by a criterion other than taylor, in a pass of its own."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from espalier.calibration_job import collect_of_job
from espalier.files import write_table
from espalier.jobs import job_log
from espalier.tables import Importance

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, job: dict[str, Any], criterion: str, importance: str) -> None:
    collected = collect_of_job(**job, criterion=criterion)
    write_table(importance, Importance.validate(pd.DataFrame(collected.importance)))


if __name__ == "__main__":
    wildcards = snakemake.wildcards
    with job_log(snakemake.log[0], f"{wildcards.text_criterion} {wildcards.model} seq{wildcards.seq_len}"):
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
            criterion=wildcards.text_criterion,
            importance=snakemake.output[0],
        )
