"""Import the legacy results of one search folder."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from typing import TYPE_CHECKING, Any

from espalier.files import write_json
from espalier.jobs.log import workflow_job
from espalier.results.legacy.read import read_experiment
from espalier.results.legacy.scan import FoundExperiment, SearchFacts
from espalier.results.legacy.table import import_summary, import_table, summary_lines
from espalier.tables import ImportedValues, write_with_schema

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.legacy")


def main(*, names: dict[str, Any], table: str, summary_file: str) -> None:
    search = SearchFacts(**names["search"])
    found = [FoundExperiment.from_dict(values) for values in names["experiments"]]
    experiments = [
        read_experiment(one, search, methods=names["methods"], model_names=names["model_names"]) for one in found
    ]
    frame = import_table(search, zip(found, experiments, strict=True))
    summary = import_summary(search, frame, names["not_read"])
    for line in summary_lines(summary):
        logger.warning("%s", line)
    counts = ", ".join(f"{count} {status}" for status, count in summary["experiments"].items())
    logger.info("experiments: %s", counts)
    write_with_schema(table, frame, ImportedValues)
    write_json(summary_file, summary)


if __name__ == "__main__":
    with workflow_job(snakemake, "import_legacy", f"import {snakemake.wildcards.search_folder}"):
        main(names=snakemake.params.names, table=snakemake.output.table, summary_file=snakemake.output.listing)
