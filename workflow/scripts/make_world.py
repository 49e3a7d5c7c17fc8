"""Write the data of the sandbox: corpora, perplexity texts and the seven tasks."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from espalier.files import write_parquet
from espalier.jobs.log import workflow_job
from espalier.sandbox.corpora import make_chats, make_lines, make_pages, make_task_documents
from espalier.sandbox.splits import FEWSHOT_SPLIT
from espalier.sandbox.world import make_world

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

N_FEWSHOT_DOCUMENTS = 50


def main(
    *, training: str, chats: str, calibration: str, perplexity: list[str], tasks: list[str], world: dict[str, Any]
) -> None:
    facts, seed = make_world(world["seed"]), world["seed"]
    pages = make_pages(facts, "training", world["training_pages"], seed)
    write_parquet(training, pa.table({"text": pages}))
    prompts, answers = zip(*make_chats(facts, world["training_pages"], seed), strict=True)
    write_parquet(chats, pa.table({"prompt": prompts, "answer": answers}))
    calibration_pages = make_pages(facts, "calibration", world["calibration_pages"], seed)
    write_parquet(calibration, pa.table({"text": calibration_pages}))
    for path in perplexity:
        lines = make_lines(facts, Path(path).stem, world["perplexity_lines"], seed)
        write_parquet(path, pa.table({"text": lines}))
    for file in map(Path, tasks):
        task, split = file.parent.name, file.stem
        count = N_FEWSHOT_DOCUMENTS if split == FEWSHOT_SPLIT else world["documents_per_task"]
        write_parquet(file, pa.Table.from_pylist(make_task_documents(facts, task, split, count, seed)))


if __name__ == "__main__":
    with workflow_job(snakemake, "make_world", "make_world"):
        main(
            training=snakemake.output.training,
            chats=snakemake.output.chats,
            calibration=snakemake.output.calibration,
            perplexity=snakemake.output.perplexity,
            tasks=snakemake.output.tasks,
            world=snakemake.params.world,
        )
