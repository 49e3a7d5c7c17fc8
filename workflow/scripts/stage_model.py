"""Fetch one model from the hub."""

import espalier.jobs.online  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.files import write_json
from espalier.jobs.log import workflow_job
from espalier.staging.lock import locked_commit
from espalier.staging.models import stage_model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, repository: str, revision: str, lock: Path, staged: Path) -> None:
    commit = locked_commit(lock, repository, revision)
    write_json(staged, stage_model(repository, revision, staged.parent, commit))


if __name__ == "__main__":
    with workflow_job(snakemake, "stage_model", f"stage {snakemake.wildcards.hub_model}", folder="cache"):
        main(**snakemake.params.source, lock=Path(snakemake.params.lock), staged=Path(snakemake.output[0]))
