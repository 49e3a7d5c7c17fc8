"""Fetch the documents of one task from the hub."""

import espalier.jobs.online  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.files import write_json
from espalier.jobs.log import workflow_job
from espalier.staging.datasets import stage_task
from espalier.staging.lock import LOCK_FILE

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, task: str, staged: Path) -> None:
    write_json(staged, stage_task(task, staged.parent, LOCK_FILE))


if __name__ == "__main__":
    with workflow_job(snakemake, "stage_dataset", f"stage {snakemake.wildcards.task}", folder="cache"):
        main(task=snakemake.wildcards.task, staged=Path(snakemake.output[0]))
