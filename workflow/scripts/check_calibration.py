"""Check that the calibration text of a model is apart from all that it is evaluated on."""

import espalier.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING, Any

import numpy as np

from espalier.calibration import check_disjoint, known_windows
from espalier.calibration_job import load_sequences
from espalier.evaluation.requests import read_requests
from espalier.files import read_json, write_json
from espalier.jobs import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, manifest: str, requests: str, text: str, settings: list[dict[str, Any]], checked: str) -> None:
    model, evaluated = read_json(manifest), read_requests(requests)
    texts = known_windows(evaluated.texts.values())
    documents = known_windows(np.concatenate([one.context, one.continuation]) for one in evaluated.requests.values())
    for sequences in settings:
        tokens = load_sequences(model, text, sequences, sequences["n_samples"])
        check_disjoint(tokens, texts, "a perplexity text")
        check_disjoint(tokens, documents, "a task document")
    write_json(checked, {"model": model["model"], "sequences": settings, "shared_50_token_windows": 0})


if __name__ == "__main__":
    with workflow_job(snakemake, "check_calibration", f"calibration {snakemake.wildcards.model}"):
        main(
            manifest=snakemake.input.manifest,
            requests=snakemake.input.requests,
            text=snakemake.input.text,
            settings=snakemake.params.settings,
            checked=snakemake.output[0],
        )
