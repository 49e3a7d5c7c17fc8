"""Write `cache/lock.yaml`: the commits and checksums of all that was staged."""

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.jobs import job_log
from espalier.lock import write_lock

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, lock: Path) -> None:
    write_lock(lock)


if __name__ == "__main__":
    with job_log(snakemake.log[0], "lock"):
        main(lock=Path(snakemake.output[0]))
