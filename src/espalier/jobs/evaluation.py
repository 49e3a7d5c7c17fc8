"""Evaluate one experiment, then other pending ones of the same model: loading costs as much as evaluating.

Each evaluation is claimed separately and stored as soon as it is finished. So parallel jobs share the work, and a
killed job loses at most the evaluation that it was running. A result that is already in the store is only copied,
without loading torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.errors import UserError
from espalier.evaluation.store import METRICS, SAMPLES, Store
from espalier.files import read_json, sha256_of, write_result, write_table
from espalier.jobs.interrupts import told_to_stop
from espalier.planning.plan import Plan
from espalier.recipe import difference, evaluation_recipe, plan_settings
from espalier.recovery.fingerprint import adapter_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from espalier.evaluation.evaluator import Evaluator

logger = logging.getLogger(__name__)


_FACTS = ("model", "experiment", "pruning_ratio", "removed_param_fraction", "extreme_pruning_layers")


@dataclass(frozen=True)
class Planned:
    """An experiment of the study that may wait for its evaluation.

    Attributes:
        plan: File of its plan, whether or not it is there.
        settings: Configured settings of the plan.
        sources: Tables of importance and priors that the plan is made from.
    """

    plan: str
    settings: dict[str, Any]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationJob:
    """What the evaluations of one model have in common.

    Attributes:
        manifest: Content of the model's manifest.
        requests: Tokenised requests.
        settings: Remaining arguments of `Evaluator`: data_folder, protocol, dtype, device, gpus, token_budget, threads.
    """

    manifest: dict[str, Any]
    requests: Path
    settings: dict[str, Any]

    @classmethod
    def of(cls, snakemake: Any) -> EvaluationJob:
        """Build the job from the `snakemake` object of a script."""
        params, resources = snakemake.params, snakemake.resources
        settings = {
            "data_folder": Path(params.data_folder),
            "protocol": params.protocol,
            "dtype": params.dtype,
            "device": resources.device,
            "gpus": resources.gpu,
            "token_budget": resources.token_budget,
            "threads": snakemake.threads,
        }
        return cls(read_json(snakemake.input.manifest), Path(snakemake.input.requests), settings)

    def recipe(self, plan: dict[str, Any] | None, adapter: Path | None = None) -> dict[str, Any]:
        """Return the recipe of one evaluation, of a recovered model if a folder with an adapter is given."""
        return evaluation_recipe(
            self.manifest,
            plan,
            protocol=self.settings["protocol"],
            requests=self._requests_hash,
            dtype=self.settings["dtype"],
            adapter=None if adapter is None else adapter_fingerprint(adapter),
        )

    @cached_property
    def _requests_hash(self) -> str:
        return sha256_of(self.requests)

    def evaluator(self) -> Evaluator:
        """Load what every evaluation needs; imports torch and lm-eval."""
        from espalier.evaluation.evaluator import Evaluator

        return Evaluator(self.manifest, requests=self.requests, **self.settings)


def evaluate_with_others(
    work: EvaluationJob, store: Store, plan: Path, *, at_most: int, planned: Callable[[], Iterable[Planned]] = tuple
) -> str:
    """Make sure that an experiment is evaluated and stored; then evaluate other pending ones with the loaded model.

    Args:
        work: The model and how to evaluate it.
        store: Finished evaluations of the model.
        plan: `plan.json` of the experiment.
        at_most: How many experiments to evaluate in this process.
        planned: Looks up all experiments of the model in the study; called only if another one may be
            evaluated. Folders that are left from an older grid are not evaluated.

    Returns:
        The experiment's key in the store.

    Raises:
        UserError: If this experiment cannot be evaluated. Failures of the extra experiments are reported by their own
            jobs.
    """
    own = read_json(plan)
    key = store.key(work.recipe(own))
    if store.has(key):
        return key
    evaluator = work.evaluator()
    with store.claim(key, wait=True):
        if not store.has(key):
            _evaluate(work, store, evaluator, own)
    for other in _first(at_most - 1, _waiting(work, store, plan, planned)):
        if told_to_stop():
            logger.info("the workflow was told to stop, so no other experiment is begun")
            break
        other_key = store.key(work.recipe(other))
        with store.claim(other_key, wait=False) as free:
            if free and not store.has(other_key):  # finished between the look and the claim
                _try(partial(_evaluate, work, store, evaluator, other), other["experiment"])
    return key


def facts_of(plan: Path) -> dict[str, Any]:
    """Return the fields of a plan that are copied into metrics.json."""
    content = read_json(plan)
    return {fact: content[fact] for fact in _FACTS}


def evaluate_recovered(work: EvaluationJob, store: Store, plan: Path, adapter: Path) -> str:
    """Make sure that a recovered experiment is evaluated and stored; result and errors as `evaluate_with_others`.

    Args:
        work: The model and how to evaluate it.
        store: Finished evaluations of recovered models.
        plan: `plan.json` of the experiment.
        adapter: Folder of its adapter.
    """
    own = read_json(plan)
    key = store.key(work.recipe(own, adapter))
    if not store.has(key):
        with store.claim(key, wait=True):
            if not store.has(key):
                _evaluate(work, store, work.evaluator(), own, adapter)
    return key


def _evaluate(
    work: EvaluationJob, store: Store, evaluator: Evaluator, plan: dict[str, Any], adapter: Path | None = None
) -> None:
    from espalier.tables import Samples

    recipe = work.recipe(plan, adapter)
    metrics, samples = evaluator.evaluate(Plan.from_dict(plan), None if adapter is None else _merging(adapter))
    with store.adding(store.key(recipe)) as folder:
        write_table(folder / SAMPLES, Samples.validate(samples))
        write_result(folder / METRICS, {**metrics, "recipe": recipe})
    logger.info("%s: acc_mean %.4f", plan["experiment"], metrics["acc_mean"]["value"])


def _merging(adapter: Path) -> Callable[[PreTrainedModel, Plan], PreTrainedModel]:
    """Return what merges an adapter into a pruned model; peft is imported only for recovered models."""
    from espalier.recovery.lora import merge_adapter

    return lambda model, plan: merge_adapter(model, adapter, plan)


def _waiting(
    work: EvaluationJob, store: Store, plan: Path, planned: Callable[[], Iterable[Planned]]
) -> Iterator[dict[str, Any]]:
    """Yield the plans of other experiments that have no metrics and are not in the store."""
    for one in planned():
        path = Path(one.plan)
        if path != plan and path.exists() and not path.with_name(METRICS).exists():
            content = _current_plan(one, work.manifest)
            if content is not None and not store.has(store.key(work.recipe(content))):
                yield content


def _current_plan(planned: Planned, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """Read a plan; None if it is stale: its own job makes it again before it is evaluated.

    A plan is stale if it was made by other settings, by another version or from other weights, or if a table that it is
    made from is newer or missing. Where copying has mixed up the times of files, plans that are current are skipped,
    too; their own jobs evaluate them.
    """
    try:
        made = Path(planned.plan).stat().st_mtime_ns
        if any(Path(source).stat().st_mtime_ns > made for source in planned.sources):
            return None
        content: dict[str, Any] = read_json(planned.plan)
    except (FileNotFoundError, UserError):  # removed meanwhile, or incomplete
        return None
    names = {"model": manifest["model"], "experiment": Path(planned.plan).parent.name}
    different = difference(content, **names, settings=plan_settings(manifest, planned.settings))
    return content if different is None else None


def _first(count: int, plans: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for _, plan in zip(range(count), plans, strict=False):
        yield plan


def _try(evaluate: Callable[[], None], experiment: str) -> None:
    """Evaluate an extra experiment; its own job reports what is wrong with it."""
    try:
        evaluate()
    except Exception as error:  # noqa: BLE001 (whatever it is)
        logger.warning("%s, evaluated beside, failed: %s", experiment, error)
