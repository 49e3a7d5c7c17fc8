"""Evaluate one recovered model: a pruned model with its adapter merged, or with its trained weights."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.jobs.evaluation import EvaluationJob, evaluate_recovered, plan_header
from espalier.jobs.log import workflow_job
from espalier.results.store import Store

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, job: EvaluationJob, plan: Path, recovered: Path, metrics: Path, samples: Path) -> None:
    store = Store(recovered.parent.parent / ".store")
    key = evaluate_recovered(job, store, plan, recovered)
    store.deliver_evaluation(key, plan_header(plan), metrics=metrics, samples=samples)


if __name__ == "__main__":
    name = f"evaluate recovered {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    metrics = Path(snakemake.output.metrics)
    with workflow_job(snakemake, "evaluate_recovered", name):
        main(
            job=EvaluationJob.from_snakemake(snakemake),
            plan=Path(snakemake.input.plan),
            recovered=Path(snakemake.input.recovered[0]).parent,
            metrics=metrics,
            samples=Path(snakemake.output.samples),
        )
