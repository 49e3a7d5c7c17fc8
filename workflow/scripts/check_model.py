"""Check a model folder and write its manifest."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

from espalier.files import read_json, write_result
from espalier.jobs.check_architecture import check_architecture
from espalier.jobs.log import workflow_job
from espalier.models.manifest import make_manifest

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, name: str, folder: str, staged: list[str], trust_remote_code: bool, manifest: str) -> None:
    commit = read_json(staged[0])["commit"] if staged else None
    described = make_manifest(name, folder, trust_remote_code=trust_remote_code, commit=commit)
    check_architecture(folder, trust_remote_code=trust_remote_code)
    write_result(manifest, described)


if __name__ == "__main__":
    with workflow_job(snakemake, "check_model", f"check {snakemake.wildcards.model}"):
        main(
            name=snakemake.wildcards.model,
            **snakemake.params.model,
            staged=list(snakemake.input.staged),
            manifest=snakemake.output[0],
        )
