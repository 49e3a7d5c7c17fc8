"""Reasons for missing results: the recorded failures of the jobs that produce them.

An experiment depends on a chain of jobs: staging and checking its model, staging its calibration text, the passes for
importance and priors, its plan, the requests of its model, and its evaluation. The first job of the chain that failed
and has no output gives the reason. The jobs follow from the config, so records that an older grid left are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from espalier.config.data import HUB, SANDBOX, TextSource
from espalier.config.study import StudyConfig
from espalier.naming import ratio_key
from espalier.study.experiments import Experiment
from espalier.study.failure_records import failure_file, older_file, read_failure
from espalier.study.paths import CACHE, Paths, Wildcards
from espalier.study.recovery import recovering_rule
from espalier.study.sources import model_slug, text_slug
from espalier.study.sweep import Sweep
from espalier.study.table_sources import TableSources

Reasons = dict[str, str | None]
_STAGES = {
    "stage_model": "staging", "stage_dataset": "staging", "stage_text": "staging", "make_world": "sandbox",
    "train_sandbox_tokenizer": "training", "train_sandbox_model": "training", "check_model": "model",
    "tokenize_requests": "requests", "collect_gradients": "gradients", "measure_importance": "importance",
    "measure_weights": "importance", "measure_priors": "priors", "plan": "plan", "recover": "recovery",
    "recover_full": "recovery",
}  # fmt: skip
"""Name of a rule's stage. It is put before the reason when another job depends on the failed one."""


@dataclass(frozen=True)
class Job:
    """A job that results depend on.

    Attributes:
        folder: Folder of its failure record: `results/{study}` or `cache`.
        rule: Name of its rule.
        wildcards: Values of its wildcards, in the order of its output path.
        output: One of its output files.
    """

    folder: str
    rule: str
    wildcards: tuple[str, ...]
    output: str

    @property
    def name(self) -> str:
        """Rule and wildcards, separated by spaces."""
        return " ".join((self.rule, *self.wildcards))

    def failure(self) -> str | None:
        """Return why the job failed; None if it did not fail, or if its output exists."""
        found = read_failure(failure_file(self.folder, self.rule, self.wildcards))
        return None if found is None or Path(self.output).exists() else found["reason"]


class Failures:
    """Reasons for the missing results of a study. Only used if results may be missing.

    Args:
        config: Config of the study.
        paths: Paths of the study.
        sweep: Experiments of the study.
        tables: Inputs of the tables of the study.
        more_jobs: Functions that return further jobs of a model that may fail: exports and timings.
    """

    def __init__(
        self,
        config: StudyConfig,
        paths: Paths,
        sweep: Sweep,
        tables: TableSources,
        *,
        more_jobs: Sequence[Callable[[str], Iterable[Job]]] = (),
    ) -> None:
        self._config, self._paths, self._sweep, self._tables, self._more_jobs = config, paths, sweep, tables, more_jobs
        self._models = {model.name: model for model in config.models if model.legacy is None}

    # -- params of rules -----------------------------------------------------------------------------------------

    def missing_experiments(self, wildcards: Wildcards = None) -> Reasons:
        """Return the missing metrics files, each with its reason; None if the reason is not known.

        As a param of the tables, this reruns them when an experiment finishes or fails for another reason.
        """
        absent = set(self._tables.missing(wildcards))
        cache = _FailureCache()
        found: Reasons = {}
        for name in self._models:
            path = self._paths.of("evaluate_baseline", name)
            if path in absent:
                found[path] = self._why_no_baseline(name, cache)
        for experiment in self._sweep.experiments:
            path = self._paths.of("evaluate", experiment.model, experiment.name)
            if path in absent:
                found[path] = self._why_no_metrics(experiment, cache)
        return dict(sorted(found.items()))

    def missing_recovered(self, experiments: Iterable[tuple[str, str]]) -> Reasons:
        """Return the metrics files of recovered experiments that are missing, as `missing_experiments` does.

        Args:
            experiments: Pairs of model and experiment whose metrics are missing.
        """
        cache = _FailureCache()
        by_name = {(one.model, one.name): one for one in self._sweep.experiments}
        return {
            self._paths.of("evaluate_recovered", model, name): self._why_not_recovered(by_name[model, name], cache)
            for model, name in experiments
        }

    def unchecked_models(self, wildcards: Wildcards = None) -> list[dict[str, str]]:
        """Return the models without a manifest, which have no reports, with the reason.

        Empty unless results may be missing: otherwise the reports wait for the manifest of every model.
        """
        unchecked = [name for name in self._models if not self._sweep.available([self._manifest(name)])]
        return [{"model": name, "reason": self._why_unchecked(name)} for name in unchecked]

    def failed_jobs(self, wildcards: Wildcards = None) -> list[dict[str, str]]:
        """Return failed jobs, with the reason: those that several results depend on, checks, exports and timings.

        Plans, recoveries and evaluations of single experiments are left out, because the tables show their failures.
        Empty unless results may be missing.
        """
        if not self._sweep.allows_missing:
            return []
        unchecked = {one["model"] for one in self.unchecked_models()}
        jobs = {job.name: job for name in self._models if name not in unchecked for job in self._reported_jobs(name)}
        return [{"job": name, "reason": reason} for name, job in jobs.items() if (reason := job.failure())]

    # -- chains of jobs ------------------------------------------------------------------------------------------

    def _why_no_baseline(self, model: str, cache: _FailureCache) -> str | None:
        own = self._job("evaluate_baseline", model)
        return (
            cache.first_failure(("model", model), partial(self._model_jobs, model))
            or cache.first_failure(("requests", model), partial(self._request_jobs, model))
            or own.failure()
            or self._reason_of_0_1_0("evaluate_baseline", (model,))
        )

    def _why_no_metrics(self, experiment: Experiment, cache: _FailureCache) -> str | None:
        names = (experiment.model, experiment.name)
        own = self._job("evaluate", *names)
        return (
            self._why_no_plan(experiment, cache)
            or cache.first_failure(("requests", experiment.model), partial(self._request_jobs, experiment.model))
            or own.failure()
            or self._why_no_race(experiment, cache)
            or self._reason_of_0_1_0("evaluate", names)
        )

    def _why_no_race(self, experiment: Experiment, cache: _FailureCache) -> str | None:
        """Return why an experiment cannot race: the plans of all experiments of its race are inputs of its job."""
        if self._config.evaluation.racing is None:
            return None
        for other in self._sweep.experiments_of_model(experiment.model):
            if ratio_key(other.pruning_ratio) == ratio_key(experiment.pruning_ratio):
                has_plan = Path(self._paths.of("plan", other.model, other.name)).exists()
                if not has_plan and (reason := self._why_no_plan(other, cache)):
                    return f"race: experiment {other.name} has no plan: {reason}"
        return None

    def _why_not_recovered(self, experiment: Experiment, cache: _FailureCache) -> str | None:
        names = (experiment.model, experiment.name)
        text = (self._config.recovery.text if self._config.recovery else None) or self._config.calibration
        training = [*self._text_jobs(text), self._job(recovering_rule(self._config), *names)]
        own = self._job("evaluate_recovered", *names)
        return (
            self._why_no_plan(experiment, cache)
            or _first_failure(training)
            or cache.first_failure(("requests", experiment.model), partial(self._request_jobs, experiment.model))
            or own.failure()
            or self._reason_of_0_1_0("evaluate_recovered", names)
        )

    def _why_no_plan(self, experiment: Experiment, cache: _FailureCache) -> str | None:
        shared = (experiment.method.criterion, experiment.needs_priors, experiment.seed, experiment.seq_len)
        return (
            cache.first_failure(("model", experiment.model), partial(self._model_jobs, experiment.model))
            or cache.first_failure(("passes", experiment.model, *shared), partial(self._pass_jobs, experiment))
            or _first_failure([self._job("plan", experiment.model, experiment.name)])
        )

    def _pass_jobs(self, experiment: Experiment) -> Iterator[Job]:
        """Yield the jobs that make the importance and priors of a plan, in the order of docs/method.md."""
        names = SimpleNamespace(model=experiment.model, experiment=experiment.name)
        importance, priors = self._sweep.importance_table(names), self._sweep.prior_table(names)
        if experiment.seq_len is not None and (experiment.criterion.reads_text or priors):
            yield from self._text_jobs(self._config.calibration)
        calibration = (self._sweep.calibration_of(experiment), str(experiment.seq_len))
        criterion = experiment.method.criterion
        if importance and not experiment.criterion.reads_text:
            yield self._job("measure_weights", experiment.model, criterion)
        elif importance and criterion == "taylor":
            yield self._job("collect_gradients", experiment.model, *calibration, output="collect_gradients.importance")
        elif importance:
            yield self._job("measure_importance", experiment.model, criterion, *calibration)
        if priors:
            yield self._job("measure_priors", experiment.model, *calibration)

    def _model_jobs(self, name: str) -> Iterator[Job]:
        model = self._models[name]
        if model.hub:
            yield self._staging("stage_model", model_slug(model))
        if model.sandbox:
            yield self._job("make_world")
            yield self._job("train_sandbox_tokenizer", model.sandbox.architecture)
            for trained in filter(None, (model.sandbox.continue_from, name)):
                yield self._job("train_sandbox_model", trained)
        yield self._job("check_model", name)

    def _request_jobs(self, model: str) -> Iterator[Job]:
        evaluation = self._config.evaluation
        if evaluation.data == HUB:
            for task in evaluation.task_names:
                yield self._staging("stage_dataset", task)
        if evaluation.data == SANDBOX:
            yield self._job("make_world")
        for text in evaluation.perplexity.texts:
            yield from self._text_jobs(text)
        yield self._job("tokenize_requests", model)

    def _text_jobs(self, text: TextSource) -> Iterator[Job]:
        if text.dataset == SANDBOX:
            yield self._job("make_world")
        elif text.is_hub:
            yield self._staging("stage_text", text_slug(text))

    def _reported_jobs(self, model: str) -> Iterator[Job]:
        """Yield the jobs of a model, except the plan, recovery and evaluation of each experiment."""
        yield from self._request_jobs(model)
        yield self._job("evaluate_baseline", model)
        for experiment in (one for one in self._sweep.experiments if one.model == model):
            yield from self._pass_jobs(experiment)
            calibration, seq_len = self._sweep.calibration_of(experiment), experiment.seq_len
            if experiment.needs_gradients:
                yield self._job("collect_gradients", model, calibration, str(seq_len))
            if seq_len is not None:
                yield self._job("check_calibration", model, calibration)
        if self._config.recovery:
            yield self._job("check_recovery", model)
            yield self._job("choose_recovered", model)
        for jobs in self._more_jobs:
            yield from jobs(model)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _job(self, rule: str, *wildcards: str, output: str | None = None) -> Job:
        return Job(self._paths.results, rule, wildcards, self._paths.of(output or rule, *wildcards))

    def _staging(self, rule: str, name: str) -> Job:
        return Job(CACHE, rule, (name,), self._paths.of(rule, name))

    def _manifest(self, model: str) -> str:
        return self._paths.of("check_model", model)

    def _reason_of_0_1_0(self, rule: str, wildcards: tuple[str, ...]) -> str | None:
        """Return the reason that version 0.1.0 recorded, if any. A record with a rule is from a later version."""
        path = older_file(self._paths.results, rule, wildcards)
        found = read_failure(path) if path else None
        return None if found is None or "rule" in found else found["reason"]

    def _why_unchecked(self, model: str) -> str:
        if reason := _first_failure(self._model_jobs(model)):
            return reason.removeprefix(f"{_STAGES['check_model']}: ")
        from espalier.study.config_checks import folder_problems  # reads models, so it is imported only when needed

        problems = folder_problems(self._models[model], self._manifest(model))
        reasons = [problem.removeprefix(f"model {model!r}: ") for problem in problems]
        return reasons[0] if reasons else "no job has checked it yet; run `snakemake evaluations`"


class _FailureCache:
    """Cache of the first failure in each chain of jobs, since many experiments share a chain."""

    def __init__(self) -> None:
        self._reasons: dict[Hashable, str | None] = {}

    def first_failure(self, name: Hashable, jobs: Callable[[], Iterable[Job]]) -> str | None:
        """Return the stage and reason of the first failed job of a chain; None if none failed.

        Args:
            name: Key of the chain in the cache.
            jobs: Returns the jobs of the chain, in order.
        """
        if name not in self._reasons:
            self._reasons[name] = _first_failure(jobs())
        return self._reasons[name]


def _first_failure(jobs: Iterable[Job]) -> str | None:
    """Return `stage: reason` for the first failed job of a chain; None if none failed."""
    return next((f"{_STAGES[job.rule]}: {reason}" for job in jobs if (reason := job.failure())), None)
