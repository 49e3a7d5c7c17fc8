"""Check that the calibration text of a model does not overlap with its evaluation data."""

import espalier.jobs.offline  # noqa: F401 (before all others)

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.calibration.overlap import summarise_overlap
from espalier.calibration.sequences import SequenceSettings
from espalier.evaluation.held_out import texts_left_out
from espalier.evaluation.tokenised_requests import read_requests
from espalier.files import read_json, write_result
from espalier.jobs.calibration import check_sequences
from espalier.jobs.log import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = logging.getLogger("espalier.check_calibration")


def main(*, manifest: str, requests: str, text: str, settings: list[dict[str, Any]], checked: str) -> None:
    model, sequences = read_json(manifest), [SequenceSettings(**one) for one in settings]
    if Path(model["folder"]).is_dir():
        evaluated = read_requests(requests)
        found = summarise_overlap(check_sequences(model, evaluated, text, sequences), texts_left_out(evaluated))
    else:  # the folder may be deleted after use, and tables must not depend on it
        logger.warning("%s: is gone, and with it the tokenizer: not checked", model["folder"])
        found = {**summarise_overlap([]), "not_compared": ["the model's folder is gone, and with it the tokenizer"]}
    write_result(checked, {"model": model["model"], "sequences": settings, **found})


if __name__ == "__main__":
    with workflow_job(snakemake, "check_calibration", f"calibration {snakemake.wildcards.model}"):
        main(
            manifest=snakemake.input.manifest,
            requests=snakemake.input.requests,
            text=snakemake.input.text,
            settings=snakemake.params.settings,
            checked=snakemake.output[0],
        )
