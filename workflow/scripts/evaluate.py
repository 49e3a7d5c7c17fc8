"""Evaluate one pruned model, and then other experiments of the same model that have no results yet."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.evaluation.store import Store
from espalier.jobs.evaluation import EvaluationJob, Planned, evaluate_with_others, plan_header
from espalier.jobs.log import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def planned(config: Mapping[str, Any], model: str) -> Iterator[Planned]:
    from espalier.config import load_study  # not imported by a job whose result is in the store already
    from espalier.study.planned_experiments import planned_experiments

    yield from (Planned(**one) for one in planned_experiments(load_study(config), model))


def main(
    *,
    job: EvaluationJob,
    plan: Path,
    at_most: int,
    config: Mapping[str, Any],
    model: str,
    metrics: Path,
    samples: Path,
) -> None:
    store = Store(plan.parent.parent / ".store")
    key = evaluate_with_others(job, store, plan, at_most=at_most, planned=lambda: planned(config, model))
    store.deliver(key, plan_header(plan), metrics=metrics, samples=samples)


if __name__ == "__main__":
    name = f"evaluate {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    with workflow_job(snakemake, "evaluate", name):
        main(
            job=EvaluationJob.from_snakemake(snakemake),
            plan=Path(snakemake.input.plan),
            at_most=snakemake.resources.experiments_per_job,
            config=snakemake.config,
            model=snakemake.wildcards.model,
            metrics=Path(snakemake.output.metrics),
            samples=Path(snakemake.output.samples),
        )
