"""Evaluate one pruned model, and others of the same model that wait."""

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.evaluation.pending import Work, evaluate_with_others, facts_of
from espalier.evaluation.store import Store
from espalier.jobs import failure_file, job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, work: Work, plan: Path, at_most: int, metrics: Path, samples: Path) -> None:
    store = Store(plan.parent.parent / ".store")
    key = evaluate_with_others(work, store, plan, at_most=at_most)
    store.hand_over(key, facts_of(plan), metrics=metrics, samples=samples)


if __name__ == "__main__":
    name = f"evaluate {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    with job_log(snakemake.log[0], name, failure=failure_file(snakemake.log[0])):
        main(
            work=Work.of(snakemake),
            plan=Path(snakemake.input.plan),
            at_most=snakemake.resources.experiments_per_job,
            metrics=Path(snakemake.output.metrics),
            samples=Path(snakemake.output.samples),
        )
