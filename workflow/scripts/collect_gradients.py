"""Run one gradient pass over the calibration sequences of a model."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from espalier.calibration_job import collect_of_job
from espalier.files import write_table
from espalier.jobs import job_log
from espalier.tables import Gradients, Importance

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, job: dict[str, Any], gradients: str, importance: str) -> None:
    collected = collect_of_job(**job, criterion="taylor")
    write_table(importance, Importance.validate(pd.DataFrame(collected.importance)))
    write_table(gradients, Gradients.validate(pd.DataFrame(collected.statistics)))


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"gradients {snakemake.wildcards.model} seq{snakemake.wildcards.seq_len}"):
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
            gradients=snakemake.output.gradients,
            importance=snakemake.output.importance,
        )
