"""Write what each experiment of one model removed, layer by layer."""

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.files import read_json, read_parquet, write_json
from espalier.jobs import job_log
from espalier.planning.structure import ModelStructure
from espalier.reports.structure import compare_structure, structure_text
from espalier.reports.text import write_text

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, layers: str, manifest: str, experiments: list[str], texts: list[str], jsons: list[str]) -> None:
    content = read_json(manifest)
    structure = ModelStructure.from_dict(content["structure"])
    widths = [(layer.n_kv_groups, layer.n_mlp_channels) for layer in structure.layers]
    table = read_parquet(layers).to_pandas()
    for experiment, text, json in zip(experiments, texts, jsons, strict=True):
        comparison = compare_structure(
            table, structure.total_params, experiment, content["model"], widths_before=widths
        )
        write_text(Path(text), structure_text(comparison))
        write_json(json, comparison)


if __name__ == "__main__":
    with job_log(snakemake.log[0], f"compare structures {snakemake.wildcards.model}"):
        main(
            layers=snakemake.input.layers,
            manifest=snakemake.input.manifest,
            experiments=list(snakemake.params.experiments),
            texts=list(snakemake.output.texts),
            jsons=list(snakemake.output.jsons),
        )
