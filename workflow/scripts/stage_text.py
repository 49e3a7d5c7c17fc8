"""Fetch one text from the hub."""

import espalier.jobs.online  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.jobs.log import workflow_job
from espalier.staging.datasets import stage_text
from espalier.staging.lock import LOCK_FILE

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, source: dict[str, Any], text: Path) -> None:
    stage_text(source, text, LOCK_FILE)


if __name__ == "__main__":
    with workflow_job(snakemake, "stage_text", f"stage {snakemake.wildcards.text}", folder="cache"):
        main(source=snakemake.params.source, text=Path(snakemake.output[0]))
