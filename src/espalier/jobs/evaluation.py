"""Job that evaluates the unpruned model or an experiment, and then others of the same model that have no results yet.

If the store has the job's own result, the job ends without importing torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.errors import UserError
from espalier.evaluation.settings import EvaluatorSettings
from espalier.files import read_json, sha256_of_unchanged, write_result
from espalier.jobs import pieces
from espalier.jobs.pieces import Piece, make_with_others
from espalier.jobs.resources import JobResources
from espalier.naming import BASELINE
from espalier.planning.plan import Plan
from espalier.recipe import evaluation_recipe, first_difference, plan_settings
from espalier.recovery.fingerprint import recovered_fingerprint
from espalier.results.store import GENERATIONS, METRICS, SAMPLES, Store, store_key
from espalier.study.only_files import asked_only_for_files
from espalier.study.paths import Paths, results_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from espalier.evaluation.evaluator import EvaluationResult, Evaluator
    from espalier.evaluation.tokenised_requests import RequestKey
    from espalier.results.race_store import Document, ExperimentAnswers
    from espalier.scoring.requests import Score
    from espalier.study.planned_experiments import PlannedExperiment

logger = logging.getLogger(__name__)


_PLAN_FIELDS = ("model", "experiment", "pruning_ratio", "removed_param_fraction", "extreme_pruning_layers")


@dataclass(frozen=True)
class EvaluationJob:
    """Inputs and settings that all evaluations of a model share.

    Attributes:
        manifest: Content of the model's manifest.
        requests: File of tokenised requests.
        settings: Settings of the evaluator.
    """

    manifest: dict[str, Any]
    requests: Path
    settings: EvaluatorSettings

    @classmethod
    def from_snakemake(cls, snakemake: Any) -> EvaluationJob:
        """Create the job from the `snakemake` object of a script."""
        params, resources = snakemake.params, JobResources.from_snakemake(snakemake)
        settings = EvaluatorSettings(
            data_folder=Path(params.data_folder),
            protocol=params.protocol,
            dtype=params.dtype,
            device=resources.device,
            gpus=resources.gpus,
            token_budget=resources.token_budget,
            threads=snakemake.threads,
            compile_layers=resources.compile_layers,
        )
        return cls(read_json(snakemake.input.manifest), Path(snakemake.input.requests), settings)

    def recipe(self, plan: dict[str, Any] | None, recovered: Path | None = None) -> dict[str, Any]:
        """Return the recipe of an evaluation.

        Args:
            plan: Content of `plan.json`, or None for the unpruned model.
            recovered: Folder of the adapter or weights of a recovered model, or None.
        """
        return evaluation_recipe(
            self.manifest,
            plan,
            protocol=self.settings.protocol,
            requests=self._requests_hash,
            dtype=self.settings.dtype,
            **({} if recovered is None else recovered_fingerprint(recovered)),
        )

    @property
    def _requests_hash(self) -> str:
        return sha256_of_unchanged(self.requests)

    @cached_property
    def evaluator(self) -> Evaluator:
        """The evaluator, which loads tokenizer, requests, tasks and weights once. Imports torch and lm-eval."""
        from espalier.evaluation.evaluator import Evaluator

        return Evaluator(self.manifest, requests=self.requests, settings=self.settings)

    @property
    def hardware(self) -> str:
        """Name of the GPU or processor. It is stored for readers; no recipe contains it."""
        from espalier.models.devices import hardware_name

        return hardware_name(self.settings.device)

    def check_plan(self, plan: Plan) -> None:
        """Check that whole layers can be removed from the model, if the plan removes some. Imports torch.

        Raises:
            UserError: If the architecture does not allow it.
        """
        if plan.removed_layers:
            self._check_layers  # noqa: B018 (computed once)

    @cached_property
    def _check_layers(self) -> None:
        from espalier.jobs.check_architecture import check_layers_removable

        check_layers_removable(self.manifest["folder"], trust_remote_code=self.manifest["trust_remote_code"])

    def piece(self, plan: dict[str, Any] | None, recovered: Path | None = None, *, store: Store | None = None) -> Piece:
        """Return the evaluation as a piece of work.

        Args:
            plan: As for `recipe`.
            recovered: As for `recipe`.
            store: Store of the model, which may have answers from a race. These documents are not answered again.
        """
        recipe = self.recipe(plan, recovered)
        name = "the unpruned model" if plan is None else plan["experiment"]
        what = "evaluate" if recovered is None else "evaluate recovered"
        return Piece(
            name,
            store_key(recipe),
            lambda folder: _evaluate(self, plan, recovered, recipe, folder, store),
            job=f"{what} {self.manifest['model']} {BASELINE if plan is None else name}",
            kind="experiment",
        )


def run_evaluation(snakemake: Any, plan: Path | None) -> None:
    """Evaluate the model that a script is for, and write `metrics.json` and `samples.parquet`.

    Args:
        snakemake: The `snakemake` object of the script.
        plan: File `plan.json` of the experiment; None for the unpruned model.
    """
    job, model = EvaluationJob.from_snakemake(snakemake), snakemake.wildcards.model
    paths = Paths(results_folder(snakemake.config["study"]))
    store = Store(Path(paths.evaluation_store(model)))

    def planned() -> Iterator[PlannedExperiment]:
        from espalier.config import load_study  # not imported by a job whose result is in the store already
        from espalier.study.planned_experiments import planned_experiments

        yield from planned_experiments(load_study(snakemake.config), model)

    resources = dict(snakemake.resources.items())
    output = snakemake.output
    files = {"metrics": Path(output.metrics), "samples": Path(output.samples)}
    baseline = None if asked_only_for_files() else Path(paths.of("evaluate_baseline", model))
    key = evaluate_with_others(
        job, store, plan,
        at_most=resources["experiments_per_job"], planned=planned, baseline=baseline,
        only_hands_over=pieces.only_hands_over(resources),
    )  # fmt: skip
    header = baseline_header(job.manifest) if plan is None else plan_header(plan)
    store.deliver_evaluation(key, header, **files)


def evaluate_with_others(
    job: EvaluationJob,
    store: Store,
    plan: Path | None,
    *,
    at_most: int,
    planned: Callable[[], Iterable[PlannedExperiment]] = tuple,
    baseline: Path | None = None,
    only_hands_over: bool = False,
) -> str:
    """Evaluate and store an experiment, then other experiments of the model that have no results yet.

    If the store already has the result of this experiment, return at once and evaluate no others.

    Args:
        job: Inputs and settings of the evaluations.
        store: Store of the model.
        plan: File `plan.json` of the experiment; None for the unpruned model.
        at_most: Most evaluations in this process, this one included.
        planned: Returns all experiments of the model in the study. It is called only if `at_most` allows another
            evaluation. Experiments that have left the study, for example those of an older grid, are not evaluated.
        baseline: File `metrics.json` of the unpruned model, which is evaluated beside if the file does not exist. None
            leaves it out.
        only_hands_over: As for `make_with_others`.

    Returns:
        The experiment's key in the store.

    Raises:
        UserError: If this experiment cannot be evaluated. Failures of the other experiments are only logged, because
            their own jobs report them.
    """
    own = job.piece(None if plan is None else read_json(plan), store=store)
    make_with_others(
        store,
        own,
        lambda: _others(job, store, plan, planned(), baseline),
        at_most=at_most,
        only_hands_over=only_hands_over,
    )
    return own.key


def evaluate_recovered(job: EvaluationJob, store: Store, plan: Path, recovered: Path) -> str:
    """Evaluate and store a recovered experiment, unless its result is in the store already.

    Args:
        job: Inputs and settings of the evaluations.
        store: Store of the recovered models.
        plan: File `plan.json` of the experiment.
        recovered: Folder of the adapter or weights that recovery trained for this experiment.

    Returns:
        The experiment's key in the store.

    Raises:
        UserError: If the experiment cannot be evaluated.
    """
    own = job.piece(read_json(plan), recovered)
    make_with_others(store, own)
    return own.key


def plan_header(plan: Path) -> dict[str, Any]:
    """Return the fields of a plan that are copied into metrics.json."""
    content = read_json(plan)
    return {field: content[field] for field in _PLAN_FIELDS}


def baseline_header(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first fields of the metrics.json of an unpruned model."""
    return {"model": manifest["model"], "experiment": BASELINE}


def _evaluate(
    job: EvaluationJob, plan: dict[str, Any] | None, recovered: Path | None, recipe: dict[str, Any], folder: Path,
    store: Store | None,
) -> None:  # fmt: skip
    from espalier.results.race_store import AnswerStore
    from espalier.tables import Generations, Samples, write_with_schema

    parsed = None if plan is None else Plan.from_dict(plan)
    if parsed is not None:
        job.check_plan(parsed)
    answered = None if store is None or recovered is not None else AnswerStore(store.folder, recipe).read()
    if parsed is not None and answered is not None and answered.documents:
        result = _complete(job.evaluator, parsed, answered)
    else:
        result = job.evaluator.evaluate(parsed, None if recovered is None else _merging(recovered))
    write_with_schema(folder / SAMPLES, result.samples, Samples)
    if result.generations is not None:
        write_with_schema(folder / GENERATIONS, result.generations, Generations)
    write_result(folder / METRICS, {**result.metrics, "hardware": job.hardware, "recipe": recipe})
    logger.info("%s", mean_in_words(result.metrics))


def mean_in_words(metrics: Mapping[str, Any]) -> str:
    """Return the mean accuracy of a `metrics.json` with its rule, which may differ from that of the reports."""
    return f"acc_mean {metrics['acc_mean']['value']:.4f} ({metrics['acc_mean']['rule']})"


def _complete(evaluator: Evaluator, plan: Plan, answered: ExperimentAnswers) -> EvaluationResult:
    """Answer the documents that a race has left out, and compute the results of all documents."""
    from espalier.evaluation.evaluator import DocumentAnswers

    documents = evaluator.documents
    rest = evaluator.answer(plan, documents - answered.documents, with_perplexity=not answered.perplexity)
    logger.info("%d of %d documents were answered in a race", len(answered.documents), len(documents))
    scores = {**scores_of(answered, documents), **rest.scores}
    answered.add(rest.perplexity, rest.n_params, rest.timing_s)
    return evaluator.summarise(DocumentAnswers(scores, answered.perplexity, answered.n_params, answered.timing_s))


def scores_of(answered: ExperimentAnswers, documents: Collection[Document]) -> dict[RequestKey, Score]:
    """Return the scores of an experiment's answers to some documents."""
    from espalier.evaluation.tokenised_requests import RequestKey
    from espalier.scoring.requests import Score

    wanted = frozenset(documents)
    return {
        RequestKey(task, doc_id, choice): Score(loglikelihood, is_greedy)
        for task, doc_id, choice, loglikelihood, is_greedy in answered.table.itertuples(index=False, name=None)
        if (task, doc_id) in wanted
    }


def _merging(recovered: Path) -> Callable[[PreTrainedModel, Plan], PreTrainedModel]:
    """Return a function that applies the result of a recovery to a pruned model. Imports torch."""
    from espalier.recovery.load import apply_recovered

    return lambda model, plan: apply_recovered(model, recovered, plan)


def _others(
    job: EvaluationJob, store: Store, own: Path | None, planned: Iterable[PlannedExperiment], baseline: Path | None
) -> Iterator[Piece]:
    """Yield the evaluations of other experiments, and of the unpruned model, that have no `metrics.json`.

    Stale plans are skipped.
    """
    if own is not None and baseline is not None and not baseline.exists():
        yield job.piece(None)
    for one in planned:
        path = Path(one.plan)
        if path != own and path.exists() and not path.with_name(METRICS).exists():
            content = _current_plan(one, job.manifest)
            if content is not None:
                yield job.piece(content, store=store)


def _current_plan(planned: PlannedExperiment, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """Read a plan. Return None if it is stale, missing or damaged.

    A plan is stale if it was made with other settings, by another version or from other weights, or if one of its
    source tables is newer or missing. Snakemake makes a stale plan again before the experiment's own job. A current
    plan may look stale if its files were copied and their modification times changed. Its own job then evaluates it.
    """
    try:
        made = Path(planned.plan).stat().st_mtime_ns
        if any(Path(source).stat().st_mtime_ns > made for source in planned.sources):
            return None
        content: dict[str, Any] = read_json(planned.plan)
    except (FileNotFoundError, UserError):  # the file was removed by another job, or is damaged
        return None
    names = {"model": manifest["model"], "experiment": Path(planned.plan).parent.name}
    difference = first_difference(content, **names, settings=plan_settings(manifest, planned.settings))
    return content if difference is None else None
