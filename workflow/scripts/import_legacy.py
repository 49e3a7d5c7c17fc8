"""Import the legacy results of one search folder."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from typing import TYPE_CHECKING, Any

from espalier.files import write_json, write_table
from espalier.jobs.log import workflow_job
from espalier.results.legacy.read import read_experiment
from espalier.results.legacy.table import import_table, listing, listing_lines
from espalier.tables import ImportedValues

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.legacy")


def main(*, names: dict[str, Any], table: str, listed: str) -> None:
    search = names["search"]
    readings = [
        read_experiment(
            found,
            search_folder=search["search_folder"],
            pruning_ratio=search["pruning_ratio"],
            methods=names["methods"],
            model_names=names["model_names"],
        )
        for found in names["experiments"]
    ]
    frame = ImportedValues.validate(import_table(search, zip(names["experiments"], readings, strict=True)))
    content = listing(search, frame, names["not_read"])
    for line in listing_lines(content):
        logger.warning("%s", line)
    counts = ", ".join(f"{count} {status}" for status, count in content["experiments"].items())
    logger.info("experiments: %s", counts)
    write_table(table, frame)
    write_json(listed, content)


if __name__ == "__main__":
    with workflow_job(snakemake, "import_legacy", f"import {snakemake.wildcards.search_folder}"):
        main(names=snakemake.params.names, table=snakemake.output.table, listed=snakemake.output.listing)
