"""Evaluate one unpruned model."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.evaluation.pending import Work
from espalier.evaluation.run import write_evaluation
from espalier.jobs import job_log

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.evaluate_baseline")


def main(*, work: Work, metrics: str, samples: str) -> None:
    result, rows = work.evaluator().evaluate(None)
    header = {"model": work.manifest["model"], "experiment": "baseline"}
    content = {**header, **result, "recipe": work.recipe(None)}
    write_evaluation(content, rows, metrics_path=metrics, samples_path=samples)
    logger.info("acc_mean %.4f", result["acc_mean"]["value"])


if __name__ == "__main__":
    failure = Path(snakemake.log[0]).parents[2] / "failures" / snakemake.wildcards.model / "baseline.json"
    with job_log(snakemake.log[0], f"baseline {snakemake.wildcards.model}", failure=failure):
        main(
            work=Work.of(snakemake),
            metrics=snakemake.output.metrics,
            samples=snakemake.output.samples,
        )
