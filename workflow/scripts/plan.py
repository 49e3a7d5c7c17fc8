"""Make the plan of one experiment."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.files import read_json, read_parquet, write_result
from espalier.jobs.log import workflow_job
from espalier.models.sizes import ModelSizes
from espalier.planning.make_plan import PlanSettings, make_plan
from espalier.planning.stock import stock_kv_group_counts
from espalier.recipe import plan_settings

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.plan")


def main(*, manifest: str, importance: list[str], priors: list[str], settings: dict[str, Any], plan: Path) -> None:
    model = read_json(manifest)
    made, summary = make_plan(
        ModelSizes.from_dict(model["structure"]),
        PlanSettings.from_params(settings),
        read_parquet(importance[0]) if importance else None,
        read_parquet(priors[0]) if priors else None,
        stock_kv_group_counts(model["structure"]["layers"][0]["n_kv_groups"], model["config"]),
    )
    header = {"model": model["model"], "experiment": plan.parent.name}
    write_result(plan, {**header, **asdict(summary), "recipe": plan_settings(model, settings), **made.to_dict()})
    logger.info("removes %.4f of the parameters (requested: %g)", summary.removed_param_fraction, summary.pruning_ratio)


if __name__ == "__main__":
    name = f"plan {snakemake.wildcards.model} {snakemake.wildcards.experiment}"
    with workflow_job(snakemake, "plan", name):
        main(
            manifest=snakemake.input.manifest,
            importance=list(snakemake.input.importance),
            priors=list(snakemake.input.priors),
            settings=snakemake.params.settings,
            plan=Path(snakemake.output[0]),
        )
