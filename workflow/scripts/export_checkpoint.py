"""Write one pruned model as a folder that transformers loads."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from espalier.export.make import export_checkpoint
from espalier.files import read_json
from espalier.jobs.log import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, manifest: str, description: str, recovered: list[str], dtype: str, stubs: bool, threads: int, checkpoint: Path
) -> None:
    torch.set_num_threads(threads)
    export_checkpoint(
        read_json(manifest),
        read_json(description),
        recovered=Path(recovered[0]).parent if recovered else None,
        dtype=dtype,
        stubs=stubs,
        checkpoint=checkpoint,
    )


if __name__ == "__main__":
    with workflow_job(
        snakemake, "export_checkpoint", f"export {snakemake.wildcards.model} {snakemake.wildcards.checkpoint}"
    ):
        main(
            manifest=snakemake.input.manifest,
            description=snakemake.input.description,
            recovered=list(snakemake.input.recovered),
            dtype=snakemake.params.dtype,
            stubs=snakemake.params.stubs,
            threads=snakemake.threads,
            checkpoint=Path(snakemake.output[0]),
        )
