"""Evaluate one recovered model: pruned, its adapter merged."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.evaluation.pending import Work, evaluate_recovered
from espalier.evaluation.store import Store
from espalier.files import read_json
from espalier.jobs import job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

FACTS = ("model", "experiment", "pruning_ratio", "removed_param_fraction", "extreme_pruning_layers")


def main(
    *, manifest: str, requests: Path, plan: Path, adapter: Path, settings: dict[str, Any], metrics: Path, samples: Path
) -> None:
    store = Store(adapter.parent.parent / ".store")
    key = evaluate_recovered(Work(read_json(manifest), requests, settings), store, plan, adapter)
    facts = read_json(plan)
    store.hand_over(key, {fact: facts[fact] for fact in FACTS}, metrics=metrics, samples=samples)


if __name__ == "__main__":
    name = f"evaluate recovered {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    metrics = Path(snakemake.output.metrics)
    with job_log(snakemake.log[0], name, failure=metrics.with_name("failure.json")):
        main(
            manifest=snakemake.input.manifest,
            requests=Path(snakemake.input.requests),
            plan=Path(snakemake.input.plan),
            adapter=Path(snakemake.input.weights).parent,
            settings={
                "data_folder": Path(snakemake.params.data_folder),
                "protocol": snakemake.params.protocol,
                "dtype": snakemake.params.dtype,
                "device": snakemake.resources.device,
                "gpus": snakemake.resources.gpu,
                "token_budget": snakemake.resources.token_budget,
                "threads": snakemake.threads,
            },
            metrics=metrics,
            samples=Path(snakemake.output.samples),
        )
