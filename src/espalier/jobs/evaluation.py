"""Job that evaluates an experiment, and then other experiments of the same model that have no results yet.

Loading tasks and requests can take as long as an evaluation, so one job runs several evaluations. Each evaluation is
claimed separately and stored when it is finished. Parallel jobs therefore share the work, and a killed job loses only
the evaluation that it was running. If the result of the job's own experiment is in the store, the job ends without
importing torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.errors import UserError
from espalier.evaluation.settings import EvaluatorSettings
from espalier.evaluation.store import METRICS, SAMPLES, Store
from espalier.files import read_json, sha256_of, write_result, write_table
from espalier.jobs.interrupts import is_stopping
from espalier.planning.plan import Plan
from espalier.recipe import evaluation_recipe, first_difference, plan_settings
from espalier.recovery.fingerprint import adapter_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from espalier.evaluation.evaluator import Evaluator

logger = logging.getLogger(__name__)


_PLAN_FIELDS = ("model", "experiment", "pruning_ratio", "removed_param_fraction", "extreme_pruning_layers")


@dataclass(frozen=True)
class Planned:
    """An experiment of the study, whether or not it is evaluated.

    Attributes:
        plan: File of its plan. It need not exist yet.
        settings: Configured settings of the plan, as in its recipe.
        sources: Tables of importance and priors from which the plan is made.
    """

    plan: str
    settings: dict[str, Any]
    sources: tuple[str, ...]


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
        params, resources = snakemake.params, snakemake.resources
        settings = EvaluatorSettings(
            data_folder=Path(params.data_folder),
            protocol=params.protocol,
            dtype=params.dtype,
            device=resources.device,
            gpus=resources.gpu,
            token_budget=resources.token_budget,
            threads=snakemake.threads,
        )
        return cls(read_json(snakemake.input.manifest), Path(snakemake.input.requests), settings)

    def recipe(self, plan: dict[str, Any] | None, adapter: Path | None = None) -> dict[str, Any]:
        """Return the recipe of an evaluation.

        Args:
            plan: Content of `plan.json`, or None for the unpruned model.
            adapter: Folder of the adapter of a recovered model, or None.
        """
        return evaluation_recipe(
            self.manifest,
            plan,
            protocol=self.settings.protocol,
            requests=self._requests_hash,
            dtype=self.settings.dtype,
            adapter=None if adapter is None else adapter_fingerprint(adapter),
        )

    @cached_property
    def _requests_hash(self) -> str:
        return sha256_of(self.requests)

    def evaluator(self) -> Evaluator:
        """Create the evaluator, which loads tokenizer, requests and tasks. Imports torch and lm-eval."""
        from espalier.evaluation.evaluator import Evaluator

        return Evaluator(self.manifest, requests=self.requests, settings=self.settings)


def evaluate_with_others(
    job: EvaluationJob, store: Store, plan: Path, *, at_most: int, planned: Callable[[], Iterable[Planned]] = tuple
) -> str:
    """Evaluate and store an experiment, then other experiments of the model that have no results yet.

    If the store already has the result of this experiment, return at once and evaluate no others.

    Args:
        job: Inputs and settings of the evaluations.
        store: Store of the model.
        plan: File `plan.json` of the experiment.
        at_most: Most experiments to evaluate in this process, this experiment included.
        planned: Function that returns all experiments of the model in the study. It is called only if `at_most` allows
            another experiment. Experiments that have left the study, for example those of an older grid, are not
            evaluated.

    Returns:
        The experiment's key in the store.

    Raises:
        UserError: If this experiment cannot be evaluated. Failures of the other experiments are only logged, because
            their own jobs report them.
    """
    own = read_json(plan)
    key = store.key(job.recipe(own))
    if store.has(key):
        return key
    evaluator = job.evaluator()
    with store.claim(key, wait=True):
        if not store.has(key):  # another job may have finished it while this job waited for the claim
            _evaluate(job, store, evaluator, own)
    for other in islice(_unevaluated_plans(job, store, plan, planned), max(0, at_most - 1)):
        if is_stopping():
            logger.info("the workflow was told to stop, so no other experiment is begun")
            break
        _evaluate_or_log(job, store, evaluator, other)
    return key


def plan_header(plan: Path) -> dict[str, Any]:
    """Return the fields of a plan that are copied into metrics.json."""
    content = read_json(plan)
    return {field: content[field] for field in _PLAN_FIELDS}


def evaluate_recovered(job: EvaluationJob, store: Store, plan: Path, adapter: Path) -> str:
    """Evaluate and store a recovered experiment, unless its result is in the store already.

    Args:
        job: Inputs and settings of the evaluations.
        store: Store of the recovered models.
        plan: File `plan.json` of the experiment.
        adapter: Folder of the adapter that recovery trained for this experiment.

    Returns:
        The experiment's key in the store.

    Raises:
        UserError: If the experiment cannot be evaluated.
    """
    own = read_json(plan)
    key = store.key(job.recipe(own, adapter))
    if not store.has(key):
        with store.claim(key, wait=True):
            if not store.has(key):
                _evaluate(job, store, job.evaluator(), own, adapter)
    return key


def _evaluate(
    job: EvaluationJob, store: Store, evaluator: Evaluator, plan: dict[str, Any], adapter: Path | None = None
) -> None:
    from espalier.tables import Samples

    recipe = job.recipe(plan, adapter)
    result = evaluator.evaluate(Plan.from_dict(plan), None if adapter is None else _merging(adapter))
    with store.new_entry(store.key(recipe)) as folder:
        write_table(folder / SAMPLES, Samples.validate(result.samples))
        write_result(folder / METRICS, {**result.metrics, "recipe": recipe})
    logger.info("%s: acc_mean %.4f", plan["experiment"], result.metrics["acc_mean"]["value"])


def _merging(adapter: Path) -> Callable[[PreTrainedModel, Plan], PreTrainedModel]:
    """Return a function that merges an adapter into a pruned model. Imports peft, which only recovered models need."""
    from espalier.recovery.lora import merge_adapter

    return lambda model, plan: merge_adapter(model, adapter, plan)


def _unevaluated_plans(
    job: EvaluationJob, store: Store, plan: Path, planned: Callable[[], Iterable[Planned]]
) -> Iterator[dict[str, Any]]:
    """Yield the plans of other experiments that have no `metrics.json` and are not in the store. Skip stale plans."""
    for one in planned():
        path = Path(one.plan)
        if path != plan and path.exists() and not path.with_name(METRICS).exists():
            content = _current_plan(one, job.manifest)
            if content is not None and not _is_stored(store, store.key(job.recipe(content))):
                yield content


def _is_stored(store: Store, key: str) -> bool:
    """Whether to skip another experiment, because its evaluation is in the store or cannot be read now.

    In the second case, the experiment's own job reports the error.
    """
    try:
        return store.has(key)
    except OSError as error:
        logger.warning("%s: cannot be read now and is left to its own job: %s", store.folder / key, error)
        return True


def _current_plan(planned: Planned, manifest: dict[str, Any]) -> dict[str, Any] | None:
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


def _evaluate_or_log(job: EvaluationJob, store: Store, evaluator: Evaluator, plan: dict[str, Any]) -> None:
    """Evaluate another experiment, unless another job has claimed or finished it.

    A failure is only logged, because the experiment's own job reports it.
    """
    key = store.key(job.recipe(plan))
    try:
        with store.claim(key, wait=False) as free:
            if free and not store.has(key):  # another job may have finished it before the claim
                _evaluate(job, store, evaluator, plan)
    except Exception as error:  # noqa: BLE001 (no failure of another experiment may end this job)
        logger.warning("%s, evaluated beside, failed: %s", plan["experiment"], error)
