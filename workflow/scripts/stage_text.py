"""Fetch one text from the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import espalier.online  # noqa: F401 (switches hubs on)
from espalier.evaluation.staging import stage_text
from espalier.jobs import job_log
from espalier.lock import LOCK_FILE

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, source: dict[str, Any], text: Path) -> None:
    stage_text(source, text, LOCK_FILE)


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"stage {snakemake.wildcards.text}"):
        main(source=snakemake.params.source, text=Path(snakemake.output[0]))
