"""Write the description of an exported experiment: its settings, plan and results."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.errors import UserError
from espalier.export.describe import describe_export
from espalier.files import read_json, write_json
from espalier.jobs.log import workflow_job
from espalier.results.verify import read_best_experiment

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    *, best: list[str], plans: list[str], metrics: list[str], baseline: str, manifest: str, settings: dict[str, Any],
    evaluation: dict[str, Any], output: Path,
) -> None:  # fmt: skip
    chosen = read_best_experiment(best[0]) if best else None
    if chosen and chosen["best"] is None:
        raise UserError(
            f"export: model {chosen['model']!r} has no valid experiment, so none is the best; "
            "name one under export.experiments"
        )
    name = chosen["best"]["experiment"] if chosen else Path(plans[0]).parent.name
    plan = next(path for path in plans if Path(path).parent.name == name)
    results = next(path for path in metrics if Path(path).parent.name == name)
    description = describe_export(
        plan=read_json(plan),
        metrics=read_json(results),
        baseline=read_json(baseline),
        best=chosen,
        settings=settings,
        manifest=read_json(manifest),
        experiment=name,
        evaluation=evaluation,
    )
    write_json(output, description)


if __name__ == "__main__":
    with workflow_job(
        snakemake, "describe_export", f"describe export {snakemake.wildcards.model} {snakemake.wildcards.exported}"
    ):
        main(
            best=list(snakemake.input.best),
            plans=list(snakemake.input.plans),
            metrics=list(snakemake.input.metrics),
            baseline=snakemake.input.baseline,
            manifest=snakemake.input.manifest,
            settings=snakemake.params.settings,
            evaluation=snakemake.params.evaluation,
            output=Path(snakemake.output[0]),
        )
