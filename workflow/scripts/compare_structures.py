"""Write what each experiment of one model removed, layer by layer."""

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.files import read_json, read_parquet, whole_folder, write_json
from espalier.jobs import job_log
from espalier.planning.structure import ModelStructure
from espalier.reports.structure import compare_structure, structure_text
from espalier.reports.text import write_text

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, layers: str, manifest: str, experiments: list[str], folder: Path) -> None:
    content = read_json(manifest)
    structure = ModelStructure.from_dict(content["structure"])
    widths = [(layer.n_kv_groups, layer.n_mlp_channels) for layer in structure.layers]
    table = read_parquet(layers).to_pandas()
    with whole_folder(folder) as temporary:
        for experiment in experiments:
            comparison = compare_structure(
                table, structure.total_params, experiment, content["model"], widths_before=widths
            )
            write_text(temporary / f"{experiment}.txt", structure_text(comparison))
            write_json(temporary / f"{experiment}.json", comparison)


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"compare structures {snakemake.wildcards.model}"):
        main(
            layers=snakemake.input.layers,
            manifest=snakemake.input.manifest,
            experiments=list(snakemake.params.experiments),
            folder=Path(snakemake.output[0]),
        )
