"""Write what each experiment of one model removed, layer by layer."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.files import atomic_folder, read_json, read_table, write_json, write_text
from espalier.jobs.log import workflow_job
from espalier.jobs.provenance import collect_provenance
from espalier.models.sizes import ModelSizes
from espalier.reports.site import Site
from espalier.reports.structure import compare_structure, structure_text
from espalier.reports.structure_page import structure_html
from espalier.results.legacy.study_rows import UnprunedSizes, unpruned_sizes
from espalier.serving.verdict_json import serving_verdicts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def sizes(manifests: list[str], imported: list[str], experiments: list[str]) -> Iterator[UnprunedSizes]:
    for manifest in manifests:
        structure = ModelSizes.from_dict(read_json(manifest)["structure"])
        widths = [(layer.n_kv_groups, layer.n_mlp_channels) for layer in structure.layers]
        yield from (UnprunedSizes(experiment, structure.total_params, widths) for experiment in experiments)
    for table in imported:
        yield from unpruned_sizes(read_table(table))


def main(
    *, layers: str, table_of_experiments: str, manifests: list[str], imported: list[str], model: str,
    experiments: list[str], models: list[str], config: Mapping[str, Any], language: str, folder: Path,
) -> None:  # fmt: skip
    table = read_table(layers)
    provenance = collect_provenance(read_table(table_of_experiments), config, [model])
    manifest = next((read_json(path) for path in manifests), None)
    experts = [layer.get("n_experts", 0) for layer in manifest["structure"]["layers"]] if manifest else None
    with atomic_folder(folder) as temporary:
        compared = list(sizes(manifests, imported, experiments))
        names = [None, *(experiment for experiment, _, _ in compared), None]
        for place, (experiment, total_params, widths) in enumerate(compared):
            comparison = compare_structure(
                table, total_params, experiment, model, widths_before=widths, experts_before=experts
            )
            comparison["deployment"] = serving_verdicts(table, model, experiment, manifest)
            write_text(temporary / f"{experiment}.txt", structure_text(comparison, language))
            page = structure_html(
                comparison, language, before=names[place], after=names[place + 2],
                site=Site(models, root="../../"), provenance=provenance,
            )  # fmt: skip
            write_text(temporary / f"{experiment}.html", page)
            write_json(temporary / f"{experiment}.json", comparison)


if __name__ == "__main__":
    with workflow_job(snakemake, "compare_structures", f"compare structures {snakemake.wildcards.model}"):
        main(
            layers=snakemake.input.layers,
            table_of_experiments=snakemake.input.experiments,
            manifests=list(snakemake.input.manifest),
            imported=list(snakemake.input.imported),
            model=snakemake.wildcards.model,
            experiments=list(snakemake.params.experiments),
            models=list(snakemake.params.models),
            config=snakemake.config,
            language=snakemake.params.language,
            folder=Path(snakemake.output[0]),
        )
