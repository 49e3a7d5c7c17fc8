"""Analyse the recovered experiments of one model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from functools import partial
from typing import TYPE_CHECKING

from espalier.analysis.evidence import SEED, read_draws
from espalier.analysis.recovery import analyse_recovery, joint_draws
from espalier.analysis.selection import rows_of
from espalier.files import read_parquet, read_table, write_result
from espalier.jobs.log import workflow_job
from espalier.recipe import read_samples

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, tables: dict[str, str], draws: str, samples: dict[str, str], model: str, analysis: str) -> None:
    experiments, evaluations, recovered = (read_table(path) for path in tables.values())
    rows, recovered_rows = rows_of(experiments, model), recovered[recovered.model == model]
    readers = {name: partial(read_samples, path) for name, path in samples.items()}
    before = read_draws(read_parquet(draws), all_documents=True)
    joint = joint_draws(rows, recovered_rows, evaluations, readers, before, seed=SEED)
    write_result(analysis, analyse_recovery(rows, recovered_rows, joint))


if __name__ == "__main__":
    with workflow_job(snakemake, "analyse_recovery", f"analyse recovery {snakemake.wildcards.model}"):
        main(
            tables={name: snakemake.input[name] for name in ("experiments", "evaluations", "recovery")},
            draws=snakemake.input.draws,
            samples=snakemake.params.samples,
            model=snakemake.wildcards.model,
            analysis=snakemake.output[0],
        )
