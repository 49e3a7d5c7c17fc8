"""Evaluate one recovered model: a pruned model with its adapter merged."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.evaluation.store import Store
from espalier.jobs.evaluation import EvaluationJob, evaluate_recovered, facts_of
from espalier.jobs.log import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, work: EvaluationJob, plan: Path, adapter: Path, metrics: Path, samples: Path) -> None:
    store = Store(adapter.parent.parent / ".store")
    key = evaluate_recovered(work, store, plan, adapter)
    store.hand_over(key, facts_of(plan), metrics=metrics, samples=samples)


if __name__ == "__main__":
    name = f"evaluate recovered {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    metrics = Path(snakemake.output.metrics)
    with workflow_job(snakemake, "evaluate_recovered", name):
        main(
            work=EvaluationJob.of(snakemake),
            plan=Path(snakemake.input.plan),
            adapter=Path(snakemake.input.weights).parent,
            metrics=metrics,
            samples=Path(snakemake.output.samples),
        )
