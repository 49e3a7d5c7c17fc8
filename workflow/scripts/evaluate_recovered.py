"""Evaluate one recovered model: pruned, its adapter merged."""

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.evaluation.pending import Work, evaluate_recovered, facts_of
from espalier.evaluation.store import Store
from espalier.jobs import job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, work: Work, plan: Path, adapter: Path, metrics: Path, samples: Path) -> None:
    store = Store(adapter.parent.parent / ".store")
    key = evaluate_recovered(work, store, plan, adapter)
    store.hand_over(key, facts_of(plan), metrics=metrics, samples=samples)


if __name__ == "__main__":
    name = f"evaluate recovered {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    metrics = Path(snakemake.output.metrics)
    with job_log(snakemake.log[0], name, failure=metrics.with_name("failure.json")):
        main(
            work=Work.of(snakemake),
            plan=Path(snakemake.input.plan),
            adapter=Path(snakemake.input.weights).parent,
            metrics=metrics,
            samples=Path(snakemake.output.samples),
        )
