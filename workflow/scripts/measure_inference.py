"""Measure the speed and memory of a pruned model and of its unpruned original."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.files import read_json, write_result
from espalier.jobs.inference import chosen_plan, measure_plan
from espalier.jobs.log import workflow_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, manifest: str, choice: Path, experiments: Path, settings: dict[str, Any], dtype: str, device: str, gpus: int,
    output: Path,
) -> None:  # fmt: skip
    plan = chosen_plan(choice, experiments)
    measured = measure_plan(
        read_json(manifest), plan, settings=settings, dtype=dtype, device=device, gpus=gpus
    )  # fmt: skip
    write_result(output, measured)


if __name__ == "__main__":
    with workflow_job(
        snakemake, "measure_inference", f"inference {snakemake.wildcards.model} {snakemake.wildcards.measured}"
    ):
        main(
            manifest=snakemake.input.manifest,
            choice=Path(snakemake.input.choice),
            experiments=Path(snakemake.params.experiments),
            settings=snakemake.params.settings,
            dtype=snakemake.params.dtype,
            device=snakemake.params.device,
            gpus=snakemake.resources.model_gpus,
            output=Path(snakemake.output[0]),
        )
