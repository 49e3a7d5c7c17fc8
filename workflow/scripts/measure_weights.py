"""Measure importances by a criterion that reads only the weights."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

from espalier.jobs.log import workflow_job
from espalier.jobs.passes import run_pass_of_rule
from espalier.study.passes import IMPORTANCE

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    wildcards = snakemake.wildcards
    with workflow_job(snakemake, "measure_weights", f"{wildcards.weight_criterion} {wildcards.model}"):
        run_pass_of_rule(snakemake, "measure_weights", wildcards.weight_criterion, {IMPORTANCE: snakemake.output[0]})
