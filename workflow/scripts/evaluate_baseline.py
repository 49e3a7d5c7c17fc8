"""Evaluate one unpruned model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from typing import TYPE_CHECKING

from espalier.evaluation.evaluator import write_evaluation
from espalier.jobs.evaluation import EvaluationJob
from espalier.jobs.log import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.evaluate_baseline")


def main(*, work: EvaluationJob, metrics: str, samples: str) -> None:
    result, rows = work.evaluator().evaluate(None)
    header = {"model": work.manifest["model"], "experiment": "baseline"}
    content = {**header, **result, "recipe": work.recipe(None)}
    write_evaluation(content, rows, metrics_path=metrics, samples_path=samples)
    logger.info("acc_mean %.4f", result["acc_mean"]["value"])


if __name__ == "__main__":
    with workflow_job(snakemake, "evaluate_baseline", f"baseline {snakemake.wildcards.model}"):
        main(
            work=EvaluationJob.of(snakemake),
            metrics=snakemake.output.metrics,
            samples=snakemake.output.samples,
        )
