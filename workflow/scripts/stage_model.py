"""Fetch one model from the hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import espalier.online  # noqa: F401 (switches hubs on)
from espalier.files import write_json
from espalier.jobs import job_log
from espalier.lock import locked_commit
from espalier.models.staging import stage_model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, repository: str, revision: str, lock: Path, staged: Path) -> None:
    commit = locked_commit(lock, repository, revision)
    write_json(staged, stage_model(repository, revision, staged.parent, commit))


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"stage {snakemake.wildcards.hub_model}"):
        main(**snakemake.params.source, lock=Path(snakemake.params.lock), staged=Path(snakemake.output[0]))
