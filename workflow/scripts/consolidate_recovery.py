"""Consolidate the results of all recovered experiments into one table, with their results before recovery."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING, Any

from espalier.files import read_table
from espalier.jobs.log import workflow_job
from espalier.results.recovered import RecoveredEntry, recovered_rows, recovered_table
from espalier.tables import RecoveredExperiments, write_with_schema

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *,
    experiments: str,
    entries: list[dict[str, Any]],
    configured: dict[str, Any],
    missing: dict[str, str | None],
    table: str,
) -> None:
    frame = read_table(experiments)
    texts = [text["name"] for text in configured["protocol"]["texts"]]
    rows = recovered_rows(
        [RecoveredEntry(**entry) for entry in entries], frame, texts, configured=configured, missing=missing
    )
    write_with_schema(table, recovered_table(rows, texts), RecoveredExperiments)


if __name__ == "__main__":
    with workflow_job(snakemake, "consolidate_recovery", "consolidate recovery"):
        main(
            experiments=snakemake.input.experiments,
            entries=snakemake.params.entries,
            configured={
                "settings": snakemake.params.settings,
                **snakemake.params.evaluation,
            },
            missing=snakemake.params.missing,
            table=snakemake.output[0],
        )
