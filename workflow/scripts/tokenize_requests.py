"""Tokenise every request of the evaluation for one model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.evaluation.build_requests import build_or_reuse
from espalier.evaluation.protocol import Protocol
from espalier.files import read_json
from espalier.jobs.log import workflow_job
from espalier.models.context import context_of_manifest
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.models.vocabulary import vocab_size_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.tokenize_requests")


def main(
    *,
    manifest: str,
    data_folder: Path,
    data_files: list[str],
    texts: list[str],
    requests: Path,
    protocol: dict[str, Any],
) -> None:
    model = read_json(manifest)
    tokenizer = load_tokenizer(
        check_unchanged(model), trust_remote_code=model["trust_remote_code"], add_bos=protocol["add_bos"]
    )
    if protocol["add_bos"] and tokenizer.bos_token_id is None:
        logger.warning("evaluation.add_bos: the tokenizer has no BOS token, so texts begin without one, as in lm-eval")
    with tempfile.TemporaryDirectory() as scratch:
        written = build_or_reuse(
            requests,
            tokenizer,
            Protocol.from_dict({**protocol, "window": 0, "stride": 0}),
            data_folder=data_folder,
            data_files=data_files,
            texts=texts,
            scratch=Path(scratch),
            vocab_size=vocab_size_of(model),
            context=context_of_manifest(model),
        )
    also = ", as another model with this tokenizer has" if written.reused else ""
    logger.info("%d requests%s", written.n_requests, also)


if __name__ == "__main__":
    with workflow_job(snakemake, "tokenize_requests", f"requests {snakemake.wildcards.model}"):
        main(
            manifest=snakemake.input.manifest,
            data_folder=Path(snakemake.params.data_folder),
            data_files=list(snakemake.input.tasks),
            texts=list(snakemake.input.texts),
            requests=Path(snakemake.output[0]),
            protocol=snakemake.params.protocol,
        )
