"""Evaluate one pruned model, and then other experiments of the same model, or in a race as far as the race goes."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.jobs.evaluation import run_evaluation
from espalier.jobs.log import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with workflow_job(snakemake, "evaluate", f"evaluate {snakemake.wildcards.model} {snakemake.wildcards.experiment}"):
        if "racing" in snakemake.params.keys():  # noqa: SIM118 (a list with names)
            from espalier.jobs.racing import run_raced_evaluation

            run_raced_evaluation(snakemake)
        else:
            run_evaluation(snakemake, plan=Path(snakemake.input.plan))
