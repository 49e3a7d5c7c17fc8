"""Write the table of one model, its best configuration and the comparison of its methods."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

from espalier.analysis.model import analyse_model
from espalier.analysis.selection import global_best_config, method_comparison
from espalier.files import atomic_file, read_table, write_json, write_result, write_table
from espalier.jobs.log import workflow_job
from espalier.tables import Experiments, column_metadata

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, experiments: str, model: str, ratio: float | None, table: str, csv: str, best: str, comparison: str
) -> None:
    frame = read_table(experiments)
    frame = Experiments.validate(frame[frame.model == model].reset_index(drop=True))
    analysis = analyse_model(frame, model, headline_ratio=ratio)
    write_table(table, frame, column_metadata(Experiments, frame))
    with atomic_file(csv) as path:
        frame.to_csv(path, index=False)
    write_json(best, global_best_config(analysis))
    write_result(comparison, method_comparison(analysis))


if __name__ == "__main__":
    with workflow_job(snakemake, "consolidate", f"consolidate {snakemake.wildcards.model}"):
        main(
            experiments=snakemake.input.experiments,
            model=snakemake.wildcards.model,
            ratio=snakemake.params.ratio,
            table=snakemake.output.table,
            csv=snakemake.output.csv,
            best=snakemake.output.best,
            comparison=snakemake.output.comparison,
        )
