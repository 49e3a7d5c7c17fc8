"""Check that a model can be trained, and that its recovery text overlaps with neither evaluation nor calibration."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING, Any

from espalier.calibration.overlap import summarise_overlap
from espalier.calibration.sequences import SequenceSettings
from espalier.evaluation.held_out import texts_left_out
from espalier.evaluation.tokenised_requests import read_requests
from espalier.files import read_json, write_result
from espalier.jobs.log import workflow_job
from espalier.recovery.dtype import check_trainable
from espalier.recovery.training_sequences import (
    TrainingTextSettings,
    check_not_calibrated,
    check_not_evaluated,
    load_training_sequences,
)
from espalier.study.host_memory import stored_dtype

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, manifest: str, requests: str, text: str, settings: dict[str, Any], calibrations: list[dict[str, Any]],
    dtype: str, checked: str,
) -> None:  # fmt: skip
    model = read_json(manifest)
    check_trainable(model["model"], stored_dtype(model) if dtype == "auto" else dtype)
    text_field = settings["text_field"]
    sequences = load_training_sequences(model, text, TrainingTextSettings(**settings))
    evaluated = read_requests(requests)
    compared = check_not_evaluated(sequences, model, text, text_field, evaluated)
    drawn = [SequenceSettings(**{"text_field": text_field} | calibration) for calibration in calibrations]
    check_not_calibrated(sequences, model, text, drawn)
    facts = {"model": model["model"], "sequences": settings, "n_documents": len(sequences.documents)}
    write_result(
        checked, {**facts, "calibrations": calibrations, **summarise_overlap(compared, texts_left_out(evaluated))}
    )


if __name__ == "__main__":
    with workflow_job(snakemake, "check_recovery", f"recovery text {snakemake.wildcards.model}"):
        main(
            manifest=snakemake.input.manifest,
            requests=snakemake.input.requests,
            text=snakemake.input.text,
            settings=snakemake.params.settings,
            calibrations=snakemake.params.calibrations,
            dtype=snakemake.resources.dtype,
            checked=snakemake.output[0],
        )
