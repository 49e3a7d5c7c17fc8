"""Write the name of the best experiment of a model, which recovery then fine-tunes."""

import espalier.jobs.offline  # noqa: F401 (before all others)

from typing import TYPE_CHECKING

from espalier.errors import UserError
from espalier.files import write_result
from espalier.jobs.log import workflow_job
from espalier.results.verify import read_best_experiment

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(*, best: str, chosen: str) -> None:
    content = read_best_experiment(best)
    if content["best"] is None:
        raise UserError(
            f"recovery.experiments: got 'best', but model {content['model']!r} has no valid experiment; evaluate one"
        )
    facts = {"model": content["model"], "pruning_ratio": content["pruning_ratio"]}
    write_result(chosen, {**facts, "best": content["best"]["experiment"]})


if __name__ == "__main__":
    with workflow_job(snakemake, "choose_recovered", f"choose {snakemake.wildcards.model}"):
        main(best=snakemake.input.best, chosen=snakemake.output[0])
