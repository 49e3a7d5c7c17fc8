"""Train the tokenizer of one architecture on the sandbox text."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

from espalier.files import atomic_file
from espalier.jobs.log import workflow_job
from espalier.sandbox.tokenizers import train_tokenizer
from espalier.text_files import read_texts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, text: str, tokenizer: str, architecture: str, vocab_size: int) -> None:
    trained = train_tokenizer(architecture, read_texts(text, "text"), vocab_size)
    with atomic_file(tokenizer) as path:
        trained.save(str(path))


if __name__ == "__main__":
    with workflow_job(snakemake, "train_sandbox_tokenizer", f"tokenizer {snakemake.wildcards.architecture}"):
        main(
            text=snakemake.input.text,
            tokenizer=snakemake.output[0],
            architecture=snakemake.wildcards.architecture,
            vocab_size=snakemake.params.vocab_size,
        )
