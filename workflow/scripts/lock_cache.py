"""Write `cache/lock.yaml`: the commits and checksums of all staged models, tasks and texts."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.jobs.log import workflow_job
from espalier.staging.lock import write_lock

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, lock: Path) -> None:
    write_lock(lock)


if __name__ == "__main__":
    with workflow_job(snakemake, "lock_cache", "lock", folder="cache"):
        main(lock=Path(snakemake.output[0]))
