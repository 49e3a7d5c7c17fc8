"""Fetch the documents of one task from the hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import espalier.online  # noqa: F401 (switches hubs on)
from espalier.evaluation.staging import stage_task
from espalier.files import write_json
from espalier.jobs import job_log
from espalier.lock import LOCK_FILE

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, task: str, staged: Path) -> None:
    write_json(staged, stage_task(task, staged.parent, LOCK_FILE))


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"stage {snakemake.wildcards.task}"):
        main(task=snakemake.wildcards.task, staged=Path(snakemake.output[0]))
