"""Gather all results of the study, computed and imported, into its three tables."""

from typing import TYPE_CHECKING, Any

from espalier.consolidate import (
    Finished,
    check_recipe,
    evaluations_table,
    experiments_table,
    layer_rows,
    layers_table,
)
from espalier.files import read_json, read_parquet, write_table
from espalier.jobs import job_log
from espalier.legacy import rows as legacy
from espalier.planning.structure import ModelStructure
from espalier.tables import Evaluations, Experiments, Layers

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, entries: list[dict[str, Any]], imports: list[dict[str, Any]], protocol: dict[str, Any], version: int,
    rule: str, tables: dict[str, str],
) -> None:  # fmt: skip
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
    found = [(read_parquet(one["table"]).to_pandas(), one["facts"]) for one in imports]
    experiments = [row for frame, facts in found for row in legacy.experiment_rows(frame, facts, rule)]
    evaluations = [row for frame, _ in found for row in legacy.evaluation_rows(frame)]
    layers += [row for frame, _ in found for row in legacy.layer_rows(frame)]
    write_table(tables["experiments"], Experiments.validate(experiments_table(finished, rule, experiments)))
    write_table(tables["evaluations"], Evaluations.validate(evaluations_table(finished, evaluations)))
    write_table(tables["layers"], Layers.validate(layers_table(layers)))


if __name__ == "__main__":
    with job_log(snakemake.log[0], "consolidate study"):
        main(
            entries=snakemake.params.entries,
            imports=snakemake.params.imports,
            protocol=snakemake.params.protocol,
            version=snakemake.params.version,
            rule=snakemake.params.acc_mean_rule,
            tables=dict(snakemake.output.items()),
        )
