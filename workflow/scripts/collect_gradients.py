"""Run one gradient pass over the calibration sequences of a model."""

from typing import TYPE_CHECKING, Any

import torch

from espalier.calibration_job import load_model_and_sequences
from espalier.files import write_table
from espalier.gradients.snapshots import collect_snapshots
from espalier.jobs import job_log
from espalier.ladder import ladder
from espalier.tables import Gradients, Importance

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, job: dict[str, Any], counts: dict[str, Any], token_budget: int, gradients: str, importance: str, threads: int
) -> None:
    torch.set_num_threads(threads)
    steps = ladder(counts["largest"], counts["extra"])
    model, sequences = load_model_and_sequences(**job, n_samples=counts["largest"])
    groups, statistics = collect_snapshots(model, sequences, steps, token_budget=token_budget)
    write_table(importance, Importance.validate(groups))
    write_table(gradients, Gradients.validate(statistics))


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"gradients {snakemake.wildcards.model} seq{snakemake.wildcards.seq_len}"):
        main(
            job={
                "manifest": snakemake.input.manifest,
                "text": snakemake.input.text,
                "sequences": snakemake.params.sequences,
                "dtype": snakemake.params.dtype,
                "device": snakemake.resources.device,
            },
            counts=snakemake.params.counts,
            token_budget=snakemake.resources.token_budget,
            gradients=snakemake.output.gradients,
            importance=snakemake.output.importance,
            threads=snakemake.threads,
        )
