"""Train one tiny model on the sandbox text and save it in the transformers format."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer

from espalier.files import read_parquet
from espalier.jobs.log import workflow_job
from espalier.sandbox.tokenizers import wrap
from espalier.sandbox.training import (
    ModelShape,
    SandboxSchedule,
    load_for_training,
    new_model,
    rows_of_chats,
    rows_of_pages,
    save_model,
    train,
)
from espalier.text_files import read_texts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.train_sandbox_model")


def main(
    *, text: str, chats: str, tokenizer: str, parent: Path | None, folder: Path, name: str, settings: dict[str, Any]
) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # filling costs time and changes no result
    wrapped = wrap(
        Tokenizer.from_file(tokenizer), model_max_length=settings["max_position_embeddings"], chat=parent is not None
    )
    rows = rows_of_pages(wrapped, read_texts(text, "text"))
    if parent is None:
        shape = ModelShape.from_settings(settings)
        model = new_model(settings["architecture"], shape, wrapped, seed=settings["seed"])
    else:
        model = load_for_training(parent)
        rows = rows_of_chats(wrapped, read_parquet(chats).to_pylist(), rows)
    loss = train(model, rows, SandboxSchedule.from_settings(settings), name)
    save_model(model, wrapped, folder)
    logger.info("%s: %d parameters, final training loss %.3f nats", name, model.num_parameters(), loss)


if __name__ == "__main__":
    with workflow_job(snakemake, "train_sandbox_model", f"train {snakemake.wildcards.model}"):
        main(
            text=snakemake.input.text,
            chats=snakemake.input.chats,
            tokenizer=snakemake.input.tokenizer,
            parent=Path(snakemake.input.parent[0]).parent if snakemake.input.parent else None,
            folder=Path(snakemake.output[0]).parent,
            name=snakemake.wildcards.model,
            settings=snakemake.params.settings,
        )
