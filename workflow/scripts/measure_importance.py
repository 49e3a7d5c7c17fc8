"""Measure importances by a criterion other than taylor that reads calibration text."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

from espalier.jobs.log import workflow_job
from espalier.jobs.passes import run_pass_of_rule
from espalier.study.passes import IMPORTANCE

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    wildcards = snakemake.wildcards
    with workflow_job(
        snakemake, "measure_importance", f"{wildcards.text_criterion} {wildcards.model} seq{wildcards.seq_len}"
    ):
        run_pass_of_rule(snakemake, "measure_importance", wildcards.text_criterion, {IMPORTANCE: snakemake.output[0]})
