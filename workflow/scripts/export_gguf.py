"""Write a pruned model as a GGUF file, and check it with llama.cpp if that is installed."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from espalier.export.gguf.write import export_gguf
from espalier.jobs.log import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, folder: Path, output: Path, gguf_type: str, name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    export_gguf(folder, output, gguf_type=gguf_type, name=name)


if __name__ == "__main__":
    wildcards = snakemake.wildcards
    with workflow_job(snakemake, "export_gguf", f"export_gguf {wildcards.model} {wildcards.name} {wildcards.type}"):
        main(
            folder=Path(snakemake.input[0]),
            output=Path(snakemake.output.model),
            gguf_type=wildcards.type,
            name=f"{wildcards.model} {wildcards.name}",
            threads=snakemake.threads,
        )
