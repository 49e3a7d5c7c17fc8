"""Consolidate all results of the study, computed and imported, into its three tables."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING, Any

from espalier.files import read_table, write_table
from espalier.jobs.log import workflow_job
from espalier.results.consolidate import (
    evaluations_table,
    experiments_table,
    layers_table,
    with_entering_metric,
    with_settings,
)
from espalier.results.legacy.study_rows import (
    StudyFacts,
    legacy_evaluation_rows,
    legacy_experiment_rows,
    legacy_layer_rows,
)
from espalier.results.read_results import ExperimentEntry, read_results
from espalier.tables import Evaluations, Experiments, Layers, column_metadata

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *,
    entries: list[dict[str, Any]],
    evaluation: dict[str, Any],
    missing: dict[str, str | None],
    imports: list[dict[str, Any]],
    rule: str,
    tables: dict[str, str],
) -> None:
    computed = [ExperimentEntry(**entry) for entry in entries]
    results, layers = read_results(computed, evaluation=evaluation, missing=missing)
    found = [(read_table(one["table"]), StudyFacts(**one["facts"])) for one in imports]
    experiments = [row for frame, facts in found for row in legacy_experiment_rows(frame, facts, rule)]
    evaluations = [row for frame, _ in found for row in legacy_evaluation_rows(frame)]
    layers += [row for frame, _ in found for row in legacy_layer_rows(frame)]
    all_experiments = Experiments.validate(experiments_table(results, rule, experiments))
    all_evaluations = with_settings(evaluations_table(results, evaluations), all_experiments)
    all_evaluations = Evaluations.validate(with_entering_metric(all_evaluations, all_experiments))
    all_layers = Layers.validate(with_settings(layers_table(layers), all_experiments))
    frames = {"experiments": all_experiments, "evaluations": all_evaluations, "layers": all_layers}
    schemas = {"experiments": Experiments, "evaluations": Evaluations, "layers": Layers}
    for name, frame in frames.items():
        write_table(tables[name], frame, column_metadata(schemas[name], frame))


if __name__ == "__main__":
    with workflow_job(snakemake, "consolidate_study", "consolidate study"):
        main(
            entries=snakemake.params.entries,
            evaluation=snakemake.params.evaluation,
            missing=snakemake.params.missing,
            imports=snakemake.params.imports,
            rule=snakemake.params.acc_mean_rule,
            tables=dict(snakemake.output.items()),
        )
