"""Fine-tune all weights of one pruned model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

from espalier.jobs.log import workflow_job
from espalier.jobs.recovery import run_recovery

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with workflow_job(
        snakemake, "recover_full", f"recover_full {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    ):
        run_recovery(snakemake)
