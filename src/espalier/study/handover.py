"""Look-ups of jobs whose result is in the store already: such a job only hands over files, so it needs no GPU.

One job does several pieces of work on a model (`espalier.jobs.pieces`). The jobs of the other pieces find their results
in the store. If they requested a GPU, each of them would wait in the queue of a cluster for a device that it does not
use. So the resources of these rules depend on the store, and are looked up again when a result has been stored
(`espalier.study.scheduler`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.errors import UserError
from espalier.files import read_json, sha256_of_unchanged
from espalier.recipe import evaluation_recipe
from espalier.results.store import store_key
from espalier.study.evaluation import EvaluationSettings
from espalier.study.host_memory import Memory, read_manifest
from espalier.study.only_files import asked_only_for_files
from espalier.study.passes import PASS_RULES, Passes
from espalier.study.paths import Paths, Wildcards
from espalier.study.racing import Races

if TYPE_CHECKING:
    from espalier.results.race_store import RaceRecord

HANDOVER_MB = 1000
"""Memory of a job that only hands over files, in MB."""
_MEMORY = {
    "collect_gradients": "gradients",
    "measure_importance": "gradients",
    "measure_weights": "weights",
    "measure_priors": "priors",
    "evaluate": "evaluation",
    "evaluate_baseline": "evaluation",
}
"""Keys of `espalier.study.host_memory.MEMORY_PER_PARAM`, by rule."""


class Handover:
    """Resources of the rules that run a model and share a store.

    Args:
        paths: Paths of the study.
        passes: Passes of the study.
        evaluation: Protocol of the study's evaluations.
        memory: Host memory of jobs.
        gpus: Returns the number of GPUs of a job that runs a model.
        races: Races among the experiments.
    """

    def __init__(
        self, paths: Paths, passes: Passes, evaluation: EvaluationSettings, memory: Memory,
        gpus: Callable[[Wildcards], int], races: Races,
    ) -> None:  # fmt: skip
        self._races = races
        self._records: dict[tuple[object, ...], RaceRecord] = {}
        self._paths, self._passes, self._evaluation, self._memory, self._gpus = paths, passes, evaluation, memory, gpus
        self._keys: dict[tuple[object, ...], str] = {}

    def gpu(self, rule: str) -> Callable[[Wildcards], int]:
        """Return the resource `gpu` of a rule: the GPUs of the model; 0 if the store has the result."""

        def resource(wildcards: Wildcards) -> int:
            return 0 if self.is_stored(rule, wildcards) else self._gpus(wildcards)

        return resource

    def mem_mb(self, rule: str) -> Callable[..., int]:
        """Return the resource `mem_mb` of a rule: `HANDOVER_MB` if the store has the result.

        A job of a pass gets the memory that the largest pass of its model needs, because it may do all of them.
        """

        def resource(wildcards: Wildcards, input: Any, attempt: int) -> int:  # noqa: A002 (Snakemake's name)
            if self.is_stored(rule, wildcards):
                return HANDOVER_MB * attempt
            rules = {rule}
            if rule in PASS_RULES and not asked_only_for_files():
                rules |= {one.rule for one in self._passes.of_model(wildcards.model)}
            jobs = {_MEMORY[each] for each in rules}
            return max(self._memory.mem_mb(job)(wildcards, input=input, attempt=attempt) for job in jobs)

        return resource

    def model_jobs(self, rule: str) -> Callable[[Wildcards], int]:
        """Return the resource `model_jobs` of a rule: 1; 0 if the store has the result.

        A profile limits how many jobs that run a model are submitted at a time. The others then find their results in
        the store.
        """

        def resource(wildcards: Wildcards) -> int:
            return 0 if self.is_stored(rule, wildcards) else 1

        return resource

    def is_stored(self, rule: str, wildcards: Wildcards) -> bool:
        """Return whether the store has the result of a job. Its files are not read, so they may still be damaged."""
        entry = self.entry(rule, wildcards)
        return entry is not None and entry.is_dir()

    def entry(self, rule: str, wildcards: Wildcards) -> Path | None:
        """Return the folder of a result in the store, whether or not it exists; None if an input does not exist yet."""
        find = self._find_pass if rule in PASS_RULES else self._find_evaluation
        try:
            return find(rule, wildcards)
        except (OSError, UserError, AttributeError, LookupError, TypeError, ValueError):
            # An input does not exist yet, or is damaged, which the job will say.
            return None

    def _find_pass(self, rule: str, wildcards: Wildcards) -> Path:
        """Return the folder of a pass in the store."""
        model = wildcards.model
        criterion = {
            "collect_gradients": "taylor",
            "measure_importance": getattr(wildcards, "text_criterion", None),
            "measure_weights": getattr(wildcards, "weight_criterion", None),
        }.get(rule)
        which = () if rule == "measure_weights" else (wildcards.calibration, wildcards.seq_len)
        one = self._passes.find(rule, model, criterion, *which)
        manifest = self._paths.of("check_model", model)

        def recipe() -> dict[str, Any]:
            return one.recipe(read_manifest(manifest), None if one.text is None else sha256_of_unchanged(one.text))

        inputs = [manifest, *([] if one.text is None else [one.text])]
        return Path(self._paths.pass_store(model)) / self._key((rule, criterion, *which), inputs, recipe)

    def _find_evaluation(self, rule: str, wildcards: Wildcards) -> Path:
        """Return the folder of an evaluation in the store."""
        model = wildcards.model
        manifest, requests = self._paths.of("check_model", model), self._paths.of("tokenize_requests", model)
        plan = None if rule == "evaluate_baseline" else self._paths.of("plan", model, wildcards.experiment)

        def recipe() -> dict[str, Any]:
            return evaluation_recipe(
                read_manifest(manifest),
                None if plan is None else read_json(plan),
                **self._evaluation.settings,
                requests=sha256_of_unchanged(requests),
            )

        inputs = [manifest, requests, *([] if plan is None else [plan])]
        if plan is not None and (race := self._races.of(wildcards)) is not None:
            return self._find_raced(wildcards, race, [manifest, requests, *self._races.plans(wildcards)])
        return Path(self._paths.evaluation_store(model)) / self._key((rule, plan), inputs, recipe)

    def _find_raced(self, wildcards: Wildcards, race: Mapping[str, Any], inputs: Sequence[str]) -> Path:
        """Return the folder of a raced experiment in the store.

        Args:
            wildcards: Wildcards of the job.
            race: Param `racing` of the job.
            inputs: Files of manifest, requests and all plans of the race.

        Raises:
            UserError: If the race has not come so far.
        """
        # Not imported by every job of the workflow: it needs numpy and pandas.
        from espalier.results.race_store import AnswerStore, RaceRecord, RaceSettings, TaskFacts

        store = Path(self._paths.evaluation_store(wildcards.model))
        version = (*inputs, *((stat.st_mtime_ns, stat.st_size) for stat in map(os.stat, inputs)))
        if version not in self._records:
            manifest, requests = read_manifest(inputs[0]), sha256_of_unchanged(inputs[1])
            experiments = {
                name: AnswerStore(
                    store,
                    evaluation_recipe(manifest, read_json(plan), **self._evaluation.settings, requests=requests),
                )
                for name, plan in zip(race["experiments"], inputs[2:], strict=True)
            }
            facts = TaskFacts.read_unchecked(store, requests)
            settings = RaceSettings.from_params(race)
            self._records[version] = RaceRecord(store, experiments, facts, settings, race["controls"])
        standing = self._records[version].standing(wildcards.experiment)
        if standing is None:
            raise UserError(f"{wildcards.experiment}: its race has not come so far")
        return store / standing.key

    def _key(self, job: tuple[object, ...], inputs: Sequence[str], recipe: Callable[[], dict[str, Any]]) -> str:
        """Return the key of a recipe, which is computed again only if an input has changed.

        Raises:
            OSError: If an input does not exist.
        """
        stats = [Path(path).stat() for path in inputs]
        version = (*job, *inputs, *((stat.st_mtime_ns, stat.st_size) for stat in stats))
        if version not in self._keys:
            self._keys[version] = store_key(recipe())
        return self._keys[version]
