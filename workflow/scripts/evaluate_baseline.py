"""Evaluate one unpruned model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from typing import TYPE_CHECKING

from espalier.evaluation.evaluator import EvaluationResult, write_evaluation
from espalier.jobs.evaluation import EvaluationJob
from espalier.jobs.log import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.evaluate_baseline")


def main(*, job: EvaluationJob, metrics: str, samples: str) -> None:
    result = job.evaluator().evaluate(None)
    header = {"model": job.manifest["model"], "experiment": "baseline"}
    named = EvaluationResult({**header, **result.metrics, "recipe": job.recipe(None)}, result.samples)
    write_evaluation(named, metrics_path=metrics, samples_path=samples)
    logger.info("acc_mean %.4f", result.metrics["acc_mean"]["value"])


if __name__ == "__main__":
    with workflow_job(snakemake, "evaluate_baseline", f"baseline {snakemake.wildcards.model}"):
        main(
            job=EvaluationJob.from_snakemake(snakemake),
            metrics=snakemake.output.metrics,
            samples=snakemake.output.samples,
        )
