"""Measure importances by a criterion that reads only the weights."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

import pandas as pd

from espalier.calibration.importance import importance_of_weights
from espalier.files import read_json, write_table
from espalier.jobs.log import workflow_job
from espalier.models.from_manifest import load_from_manifest
from espalier.tables import Importance

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, manifest: str, criterion: str, dtype: str, device: str, gpus: int, importance: str) -> None:
    model = load_from_manifest(read_json(manifest), dtype=dtype, device=device, gpus=gpus)
    write_table(importance, Importance.validate(pd.DataFrame(importance_of_weights(model, criterion))))


if __name__ == "__main__":
    with workflow_job(
        snakemake, "measure_weights", f"{snakemake.wildcards.weight_criterion} {snakemake.wildcards.model}"
    ):
        main(
            manifest=snakemake.input.manifest,
            criterion=snakemake.wildcards.weight_criterion,
            dtype=snakemake.params.dtype,
            device=snakemake.resources.device,
            gpus=snakemake.resources.gpu,
            importance=snakemake.output[0],
        )
