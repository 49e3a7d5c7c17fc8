"""Gather all results of the study into its three tables."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from espalier.consolidate import Finished, check_recipe, evaluations_table, experiments_table, layer_rows
from espalier.files import read_json, read_parquet, write_table
from espalier.jobs import job_log
from espalier.planning.structure import ModelStructure
from espalier.tables import Evaluations, Experiments, Layers

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, entries: list[dict[str, Any]], protocol: dict[str, Any], version: int, rule: str, tables: dict[str, str]
) -> None:
    gradients = {entry["gradients"]: None for entry in entries if entry["gradients"]}
    gradients = {path: read_parquet(path).to_pandas() for path in gradients}
    finished, layers = [], []
    for entry in entries:
        plan = read_json(entry["plan"]) if entry["plan"] else None
        statistics = gradients.get(entry["gradients"])
        if statistics is not None:
            statistics = statistics[statistics.n_samples == entry["facts"]["taylor_num_samples"]]
        finished.append(Finished(entry["facts"], read_json(entry["metrics"]), plan, statistics))
        check_recipe(finished[-1], protocol=protocol, version=version, settings=entry["settings"])
        if plan:
            layers += layer_rows(plan, ModelStructure.from_dict(read_json(entry["manifest"])["structure"]))
    write_table(tables["experiments"], Experiments.validate(experiments_table(finished, rule)))
    write_table(tables["evaluations"], Evaluations.validate(evaluations_table(finished)))
    write_table(tables["layers"], Layers.validate(pd.DataFrame(layers)))


if __name__ == "__main__":
    with job_log(snakemake.log[0], "consolidate study"):
        main(
            entries=snakemake.params.entries,
            protocol=snakemake.params.protocol,
            version=snakemake.params.version,
            rule=snakemake.params.acc_mean_rule,
            tables=dict(snakemake.output.items()),
        )
