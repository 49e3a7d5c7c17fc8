"""Measure the priors of every layer and block of a model."""

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from espalier.calibration_job import load_model_and_sequences
from espalier.files import write_table
from espalier.jobs import job_log
from espalier.ladder import ladder, prior_samples
from espalier.priors import measure_priors
from espalier.tables import PriorTable

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, job: dict[str, Any], counts: dict[str, Any], token_budget: int, priors: str, threads: int) -> None:
    torch.set_num_threads(threads)
    model, sequences = load_model_and_sequences(**job, n_samples=prior_samples(counts["largest"]))
    measured = measure_priors(model, sequences, token_budget=token_budget)
    steps = ladder(counts["largest"], counts["extra"])
    table = pd.concat([pd.DataFrame(measured.rows(n, prior_samples(n))) for n in steps], ignore_index=True)
    write_table(priors, PriorTable.validate(table))


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"priors {snakemake.wildcards.model} seq{snakemake.wildcards.seq_len}"):
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
            priors=snakemake.output[0],
            threads=snakemake.threads,
        )
