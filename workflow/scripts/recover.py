"""Fine-tune one pruned model with LoRA."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.jobs.log import workflow_job
from espalier.jobs.recovery import RecoveryJob, recover

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.recover")


def main(*, job: RecoveryJob, folder: Path, training: Path) -> None:
    trained = recover(job, folder, training)
    logger.info("loss %.3f at first, %.3f at last", trained.losses[0], trained.losses[-1])


if __name__ == "__main__":
    name = f"recover {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    training = Path(snakemake.output.training)
    with workflow_job(snakemake, "recover", name):
        main(
            job=RecoveryJob.from_snakemake(snakemake),
            folder=Path(snakemake.output.weights).parent,
            training=training,
        )
