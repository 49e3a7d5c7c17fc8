"""Job of one pass over a model: importance by a criterion, or priors; and then of other passes of the same model.

If the store has the job's own pass, the job ends without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.files import read_json, sha256_of_unchanged, write_json
from espalier.jobs import pieces
from espalier.jobs.pieces import Piece, make_with_others
from espalier.jobs.resources import JobResources
from espalier.results.store import RECIPE, Store, store_key
from espalier.study.paths import Paths, results_folder

if TYPE_CHECKING:
    from espalier.jobs.model_passes import ModelPasses
    from espalier.study.passes import Pass


@dataclass(frozen=True)
class PassJob:
    """What all passes of a model share.

    Attributes:
        manifest: Content of the model's manifest.
        resources: Resources of the job.
        threads: CPU threads.
    """

    manifest: dict[str, Any]
    resources: JobResources
    threads: int

    @cached_property
    def model(self) -> ModelPasses:
        """The model, which loads its weights once. Imports torch."""
        from espalier.jobs.model_passes import ModelPasses

        return ModelPasses(self.manifest, self.resources, self.threads)

    def piece(self, one: Pass) -> Piece:
        """Return a pass as a piece of work."""
        recipe = one.recipe(self.manifest, None if one.text is None else sha256_of_unchanged(one.text))

        def make(folder: Path) -> None:
            from espalier.study.passes import GRADIENTS, IMPORTANCE, PRIORS
            from espalier.tables import GradientStatistics, Importance, PriorTable, write_with_schema

            schemas = {IMPORTANCE: Importance, GRADIENTS: GradientStatistics, PRIORS: PriorTable}
            for name, table in self.model.tables(one).items():
                write_with_schema(folder / name, table, schemas[name])
            write_json(folder / RECIPE, recipe)

        return Piece(one.name, store_key(recipe), make, job=f"{one.name} {self.manifest['model']}")


def run_pass(
    job: PassJob, store: Store, own: Pass, *, at_most: int, planned: Callable[[], Iterable[Pass]] = tuple,
    only_hands_over: bool = False,
) -> None:  # fmt: skip
    """Run a pass and store it, then others of the model that have no tables yet, and write the tables of this pass.

    Args:
        job: What all passes of the model share.
        store: Store of the model's passes.
        own: The pass that the job is for.
        at_most: Most passes in this process, this one included.
        planned: Returns all passes of the model in the study. It is called only if `at_most` allows another pass.
        only_hands_over: As for `make_with_others`.

    Raises:
        UserError: As `espalier.jobs.model_passes.ModelPasses.tables`. Failures of the other passes are only logged,
            because their own jobs report them.
    """
    piece = job.piece(own)

    def others() -> Iterator[Piece]:
        for one in planned():
            if not all(Path(path).exists() for path in one.outputs.values()):
                yield job.piece(one)

    make_with_others(store, piece, others, at_most=at_most, only_hands_over=only_hands_over)
    store.link(piece.key, {name: Path(path) for name, path in own.outputs.items()})


def run_pass_of_rule(snakemake: Any, rule: str, criterion: str | None, outputs: Mapping[str, str]) -> None:
    """Run the pass that a script is for.

    Args:
        snakemake: The `snakemake` object of the script.
        rule: Name of the rule. `snakemake.rule` has a prefix if the workflow is imported as a module.
        criterion: Criterion of the importances; None for priors.
        outputs: Path of each output, by the name of its file in the store.
    """
    from espalier.study.passes import Pass

    params, model = dict(snakemake.params.items()), snakemake.wildcards.model
    own = Pass(
        rule,
        params["dtype"],
        criterion,
        dict(snakemake.input.items()).get("text"),
        params.get("sequences", {}),
        params.get("counts", {}),
        outputs,
    )
    job = PassJob(read_json(snakemake.input.manifest), JobResources.from_snakemake(snakemake), snakemake.threads)
    store = Store(Path(Paths(results_folder(snakemake.config["study"])).pass_store(model)))

    def planned() -> Iterator[Pass]:
        from espalier.config import load_study  # not imported by a job whose result is in the store already
        from espalier.study.passes import planned_passes

        yield from planned_passes(load_study(snakemake.config), model)

    resources = dict(snakemake.resources.items())
    run_pass(
        job, store, own,
        at_most=resources["passes_per_job"], planned=planned, only_hands_over=pieces.only_hands_over(resources),
    )  # fmt: skip
