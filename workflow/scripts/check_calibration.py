"""Check that the calibration text of a model is apart from all that it is evaluated on."""

import espalier.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING, Any

from espalier.calibration_job import check_sequences
from espalier.evaluation.requests import read_requests
from espalier.files import read_json, write_json
from espalier.jobs import workflow_job
from espalier.overlap import summarise

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, manifest: str, requests: str, text: str, settings: list[dict[str, Any]], checked: str) -> None:
    model = read_json(manifest)
    compared = check_sequences(model, read_requests(requests), text, settings)
    write_json(checked, {"model": model["model"], "sequences": settings, **summarise(compared)})


if __name__ == "__main__":
    with workflow_job(snakemake, "check_calibration", f"calibration {snakemake.wildcards.model}"):
        main(
            manifest=snakemake.input.manifest,
            requests=snakemake.input.requests,
            text=snakemake.input.text,
            settings=snakemake.params.settings,
            checked=snakemake.output[0],
        )
