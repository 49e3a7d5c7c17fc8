"""Analyse the experiments of one model."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.analysis.costs import costs_of
from espalier.analysis.evidence import draws_table, gather_evidence
from espalier.analysis.generation import too_long_json
from espalier.analysis.gradient_profile import calibration_settings, profile_gradients
from espalier.analysis.model import analyse_model
from espalier.analysis.perplexities import read_perplexities
from espalier.analysis.selection import rows_of
from espalier.files import read_json, read_table, write_parquet, write_result
from espalier.jobs.log import workflow_job
from espalier.recipe import read_samples
from espalier.serving.verdict_json import serving_verdicts_of_best

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, tables: dict[str, str], samples: dict[str, str], manifests: list[str], passes: list[tuple[str, int, str]],
    model: str, n_models: int, headline_ratio: float | None, analysis: Path, draws: Path,
) -> None:  # fmt: skip
    experiments, evaluations, layers = (read_table(path) for path in tables.values())
    readers = {name: partial(read_samples, path) for name, path in samples.items()}
    evidence = gather_evidence(rows_of(experiments, model), evaluations, readers)
    tables_of_passes = {(calibration, length): path for calibration, length, path in passes}
    profile = profile_gradients(
        (setting, read_table(path))
        for setting in calibration_settings(experiments, model)
        if (path := tables_of_passes.get((setting.calibration, setting.seq_len)))
    )
    manifest = next((read_json(path) for path in manifests), None)
    costs = costs_of(layers, model, manifest)
    content = analyse_model(
        experiments, model, headline_ratio=headline_ratio, evidence=evidence, costs=costs, gradient_profile=profile,
        perplexities=read_perplexities(samples), n_models=n_models,
    )  # fmt: skip
    content["deployment"] = serving_verdicts_of_best(content, layers, manifest)
    content["too_long"] = too_long_json(evaluations, model)
    write_parquet(draws, draws_table(evidence))
    write_result(analysis, content)


if __name__ == "__main__":
    with workflow_job(snakemake, "analyse", f"analyse {snakemake.wildcards.model}"):
        main(
            tables={name: snakemake.input[name] for name in ("experiments", "evaluations", "layers")},
            samples=snakemake.params.samples,
            manifests=list(snakemake.input.manifest),
            passes=snakemake.params.passes,
            model=snakemake.wildcards.model,
            n_models=snakemake.params.n_models,
            headline_ratio=snakemake.params.headline_ratio,
            analysis=Path(snakemake.output.analysis),
            draws=Path(snakemake.output.draws),
        )
