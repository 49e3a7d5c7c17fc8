"""Evaluate one pruned model, and others of the same model that wait."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.evaluation.pending import Work, evaluate_with_others
from espalier.evaluation.store import Store
from espalier.files import read_json
from espalier.jobs import failure_file, job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

FACTS = ("model", "experiment", "pruning_ratio", "removed_param_fraction", "extreme_pruning_layers")


def main(
    *, manifest: str, requests: Path, plan: Path, settings: dict[str, Any], at_most: int, metrics: Path, samples: Path
) -> None:
    store = Store(plan.parent.parent / ".store")
    work = Work(read_json(manifest), requests, settings)
    key = evaluate_with_others(work, store, plan, at_most=at_most)
    facts = read_json(plan)
    store.hand_over(key, {fact: facts[fact] for fact in FACTS}, metrics=metrics, samples=samples)


if __name__ == "__main__":
    name = f"evaluate {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    with job_log(snakemake.log[0], name, failure=failure_file(snakemake.log[0])):
        main(
            manifest=snakemake.input.manifest,
            requests=Path(snakemake.input.requests),
            plan=Path(snakemake.input.plan),
            settings={
                "data_folder": Path(snakemake.params.data_folder),
                "protocol": snakemake.params.protocol,
                "dtype": snakemake.params.dtype,
                "device": snakemake.resources.device,
                "gpus": snakemake.resources.gpu,
                "token_budget": snakemake.resources.token_budget,
                "threads": snakemake.threads,
            },
            at_most=snakemake.resources.experiments_per_job,
            metrics=Path(snakemake.output.metrics),
            samples=Path(snakemake.output.samples),
        )
