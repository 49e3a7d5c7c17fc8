"""Log a forecast of the remaining cost of the study."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from typing import TYPE_CHECKING, Any

from espalier.jobs.log import workflow_job
from espalier.study.forecast import PlannedJob, estimate_disk_bytes, forecast, format_forecast

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.forecast")


def main(*, jobs: list[dict[str, Any]], n_params: dict[str, int | None], first_rung: float | None) -> None:
    planned = [PlannedJob(**job) for job in jobs]
    lines = forecast(planned, n_params)
    text = format_forecast(lines, disk_bytes=estimate_disk_bytes(planned), first_rung=first_rung)
    logger.info("what is left of the study\n%s", text)


if __name__ == "__main__":
    with workflow_job(snakemake, "forecast", "forecast"):
        main(**snakemake.params.study)
