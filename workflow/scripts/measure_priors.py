"""Measure the priors of every layer and block of a model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

from espalier.jobs.log import workflow_job
from espalier.jobs.passes import run_pass_of_rule
from espalier.study.passes import PRIORS

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    wildcards = snakemake.wildcards
    with workflow_job(snakemake, "measure_priors", f"priors {wildcards.model} seq{wildcards.seq_len}"):
        run_pass_of_rule(snakemake, "measure_priors", None, {PRIORS: snakemake.output[0]})
