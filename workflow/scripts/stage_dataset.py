"""Fetch the documents of one task, or one text, from the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.evaluation.staging import stage_task, stage_text
from espalier.files import write_json
from espalier.jobs import job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, name: str, text: dict[str, Any], staged: Path) -> None:
    fetched = stage_text(text, staged.with_suffix(".parquet")) if text else stage_task(name, staged.parent)
    write_json(staged, fetched)


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"stage {snakemake.wildcards.dataset}"):
        main(name=snakemake.wildcards.dataset, text=snakemake.params.text, staged=Path(snakemake.output[0]))
